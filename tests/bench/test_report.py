"""What a run's figures look like: headline, tables, plots, the README's block; and that result.json keeps all of it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import bars, readme, report, svg
from bench.errors import BenchError
from bench.figures import FIGURES
from bench.main import write
from bench.result import CONTROL, DIRECT, ENVOY, PILLION, Result, Subject, load
from bench.scenarios import SCENARIOS
from tests.bench.results import result

SVG = "{http://www.w3.org/2000/svg}"


def test_the_answer_stands_first() -> None:
    first = report.markdown(result()).splitlines()[0]
    assert first == (
        "A hop adds 60 µs at p50 and 400 µs at p99 (p50 / p99 in µs: direct 100 / 300, Pillion 160 / 700, "
        "Envoy 200 / 1,100)."
    )


def test_without_envoy_the_answer_is_there_all_the_same() -> None:
    alone = result()
    alone.scenarios[0].subjects = [s for s in alone.scenarios[0].subjects if s.name in (DIRECT, PILLION)]
    assert report.headline(alone) == (
        "A hop adds 60 µs at p50 and 400 µs at p99 (p50 / p99 in µs: direct 100 / 300, Pillion 160 / 700)."
    )


def test_of_other_scenarios_the_first_ratio_is_told() -> None:
    other = result()
    other.scenarios[0].name = "tcp"
    for subject in other.scenarios[0].subjects:
        subject.figures = {name: values for name, values in subject.figures.items() if name == "cpu"}
    assert "Pillion over Envoy: 0.50" in report.headline(other)


def test_nothing_to_compare_is_said() -> None:
    empty = result()
    empty.scenarios.clear()
    assert "Nothing to compare" in report.markdown(empty)


def test_table_has_medians_ranges_ratios_and_noise() -> None:
    lines = report.table(result().scenarios[0])
    assert lines[0] == "|  | direct | Pillion | Envoy | Pillion / Envoy | noise (Pillion again / Pillion) |"
    assert set(lines[1]) == {"|", "-"}
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}
    assert rows["CPU per request, slope between two rates"].endswith(
        "|  | 45.0 µs (40.0 to 50.0) | 80.0 µs (75.0 to 125.0) | 0.50 (0.40 to 0.60) | 1.00 (0.90 to 1.10) |"
    )
    assert rows["added at p50"].endswith("| 60 µs (50 to 70) | 100 µs (100 to 100) | 0.60 |  |")
    assert "54.3 MB | 70.0 MB | 0.78 |" in rows["memory as if alone on the machine"]


def test_haproxy_is_compared_too() -> None:
    scenario = result().scenarios[0]
    scenario.subjects.append(Subject("haproxy", "HAProxy", 1, {"cpu": [20e-6, 20e-6, 30e-6]}))
    head, _, *rows = report.table(scenario)
    assert "| Pillion / Envoy | Pillion / HAProxy | noise" in head
    assert any("| 0.50 (0.40 to 0.60) | 2.00 (1.67 to 2.25) | 1.00" in row for row in rows)


def test_ratios_need_figures_of_the_same_turns() -> None:
    scenario = result().scenarios[0]
    envoy = scenario.subject(ENVOY)
    assert envoy is not None
    envoy.figures["cpu"].pop()
    assert scenario.ratio("cpu", PILLION, ENVOY) is None
    envoy.figures["added_p50"] = [-1e-6] * 3
    assert scenario.ratio("added_p50", PILLION, ENVOY) is None
    assert scenario.ratio("cpu", PILLION, "nginx") is None


def test_failures_and_what_was_skipped_are_in_the_report() -> None:
    failed = result()
    failed.failures.append("h1-hop: nginx: it fell over")
    text = report.markdown(failed)
    assert "## What failed\n\n- h1-hop: nginx: it fell over" in text
    assert "- wrk is not installed" in text


def test_what_is_to_be_reached_stands_beside_it(tmp_path: Path) -> None:
    found = result()
    scenario = found.scenarios[0]
    scenario.name = "h1-pair"
    rows = report.table(scenario)
    assert rows[0].endswith("| noise (Pillion again / Pillion) | bar (Pillion / Envoy) |")
    last = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[-1] for row in rows[2:]}
    assert (last["added at p50"], last["added at p99"]) == ("≤ 0.60 |", "≤ 0.80 |")
    assert last["latency p50"].strip() == "|"
    assert "| one plaintext hop: added at p50 | 60 µs | 100 µs | 0.60 | ≤ 0.60 |" in readme.block(found)
    write(found, tmp_path)
    told = json.loads((tmp_path / "result.json").read_text())["scenarios"][0]["bars"]
    assert told == {"cpu_saturated": 0.7, "added_p50": 0.6, "added_p99": 0.8}


def test_every_bar_is_of_a_scenario_and_a_figure_that_there_are() -> None:
    for scenario, figure in bars.BARS:
        assert scenario in SCENARIOS
        assert figure in FIGURES
    assert bars.shown("grpc-stream", "bytes_per_cpu_second") == "≥ 0.70"


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_no_cell_breaks_the_table(cells: list[str]) -> None:
    head, line, row = report.markdown_table([""] * len(cells), [cells])
    unescaped = row.replace("\\|", "")
    assert "\n" not in row
    assert unescaped.count("|") == head.count("|") == line.count("|") == len(cells) + 1


def test_plots_are_well_formed_and_have_a_bar_each() -> None:
    plots = svg.charts(result())
    assert set(plots) == {"added-p50.svg", "added-p99.svg", "cpu.svg", "memory-alone.svg"}
    root = ElementTree.fromstring(plots["cpu.svg"])  # noqa: S314  # our own
    assert len(root.findall(f"{SVG}rect")) == 2  # the control is not drawn
    assert len(root.findall(f"{SVG}path")) == 2
    texts = [element.text for element in root.findall(f"{SVG}text")]
    assert {"Pillion", "Envoy", "45.0 µs", "80.0 µs", "one plaintext hop"} <= set(texts)
    widths = [float(rect.get("width", "")) for rect in root.findall(f"{SVG}rect")]
    assert widths[0] / widths[1] == pytest.approx(45 / 80, rel=0.01)
    assert "prefers-color-scheme:dark" in plots["cpu.svg"]


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=3),
)
def test_any_plot_is_well_formed_and_within_its_frame(label: str, values: list[float]) -> None:
    bars = tuple(svg.Bar(label, "#000", value, min(values), max(values), label) for value in values)
    root = ElementTree.fromstring(svg.chart(label, [svg.Group(label, bars)]))  # noqa: S314  # our own
    for rect in root.findall(f"{SVG}rect"):
        assert 0 <= float(rect.get("x", "")) + float(rect.get("width", "")) <= float(root.get("width", ""))
        assert float(rect.get("y", "")) + float(rect.get("height", "")) <= float(root.get("height", ""))


def test_files_are_written_and_read_back_whole(tmp_path: Path) -> None:
    before = result()
    write(before, tmp_path)
    assert load(tmp_path / "result.json") == before
    told = json.loads((tmp_path / "result.json").read_text())["scenarios"][0]["subjects"][1]["summary"]["cpu"]
    assert told == {"median": pytest.approx(45e-6), "low": pytest.approx(40e-6), "high": pytest.approx(50e-6)}
    text = (tmp_path / "report.md").read_text()
    for plot in tmp_path.glob("*.svg"):
        assert f"({plot.name})" in text


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 0, "scenarios": []}'])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(BenchError):
        load(path)


def test_a_missing_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file"):
        load(tmp_path / "result.json")


README = f"# Title\n\nbefore\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n"


def run(tmp_path: Path, text: str, found: Result) -> tuple[int, str]:
    write(found, tmp_path)
    path = tmp_path / "README.md"
    path.write_text(text)
    return readme.main([str(tmp_path / "result.json"), str(path)]), path.read_text()


def test_the_readme_is_changed_between_the_markers_only(tmp_path: Path) -> None:
    code, text = run(tmp_path, README, result())
    assert code == 0
    assert text.startswith(f"# Title\n\nbefore\n\n{readme.BEGIN}\nA hop adds 60 µs")
    assert text.endswith(f"\n{readme.END}\n\nafter\n")
    assert "old" not in text
    assert "| one plaintext hop: added at p50 | 60 µs | 100 µs | 0.60 |" in text
    assert CONTROL not in text
    assert run(tmp_path, text, result()) == (0, text)


@pytest.mark.parametrize(
    "text", ["no markers", readme.BEGIN, readme.END + readme.BEGIN, README + readme.BEGIN], ids=range(4)
)
def test_a_readme_without_one_pair_of_markers_is_left_alone(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, text, result()) == (2, text)
    assert readme.BEGIN in capsys.readouterr().err


def test_a_readme_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(result(), tmp_path)
    assert readme.main([str(tmp_path / "result.json"), str(tmp_path / "README.md")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
