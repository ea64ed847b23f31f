"""The statistics, against values computed by hand and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import maths

numbers = st.floats(-1e6, 1e6)


def test_summary_of_odd_and_even_counts() -> None:
    assert maths.summary([3.0, 1.0, 2.0]) == maths.Summary(2.0, 1.0, 3.0)
    assert maths.summary([4.0, 1.0, 2.0, 3.0]) == maths.Summary(2.5, 1.0, 4.0)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.01, 1.0), (0.5, 50.0), (0.501, 51.0), (0.99, 99.0), (1.0, 100.0)]
)
def test_nearest_rank_percentiles_of_1_to_100(share: float, expected: float) -> None:
    assert maths.percentile([float(n) for n in range(1, 101)], share) == expected


@given(st.lists(numbers, min_size=1), st.floats(0, 1))
def test_a_percentile_is_a_value_with_that_share_at_or_below(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = maths.percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered)


def test_slope_takes_out_what_does_not_depend_on_the_rate() -> None:
    idle, per_request = 0.004, 50e-6
    slope, intercept = maths.slope([(rate, idle + rate * per_request) for rate in (1000.0, 3000.0)])
    assert slope == pytest.approx(per_request)
    assert intercept == pytest.approx(idle)


def test_slope_of_scattered_points_is_least_squares() -> None:
    slope, intercept = maths.slope([(0.0, 1.0), (1.0, 0.0), (2.0, 5.0)])
    assert (slope, intercept) == (pytest.approx(2.0), pytest.approx(0.0))


@given(st.floats(-100, 100), st.floats(-100, 100), st.lists(st.integers(-100, 100), min_size=2, unique=True))
def test_slope_finds_any_line(rise: float, start: float, xs: list[int]) -> None:
    slope, intercept = maths.slope([(float(x), start + rise * x) for x in xs])
    assert slope == pytest.approx(rise, abs=1e-6)
    assert intercept == pytest.approx(start, abs=1e-4)


def test_ratios_go_turn_by_turn() -> None:
    assert maths.ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: maths.summary([]),
        lambda: maths.percentile([], 0.5),
        lambda: maths.slope([]),
        lambda: maths.slope([(1.0, 2.0), (1.0, 3.0)]),
        lambda: maths.ratios([], []),
        lambda: maths.ratios([1.0], [0.0]),
        lambda: maths.ratios([1.0], [1.0, 2.0]),
    ],
)
def test_nothing_is_made_of_nothing(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError):
        wrong()
