"""Counters: nothing is counted twice or lost between two takes."""

from __future__ import annotations

from proxy.telemetry.counters import BUCKETS, Counters


def test_takes_give_increments() -> None:
    counters = Counters()
    slot = counters.slot("rq_total", b="2", a="1")
    assert counters.slot("rq_total", a="1", b="2") == slot
    histogram = counters.histogram("seconds")
    counters.values[slot] += 2
    histogram.observe(BUCKETS[0])
    histogram.observe(1e9)
    counted, _, histograms = counters.take()
    assert counted == ((("rq_total", (("a", "1"), ("b", "2"))), 2),)
    ((key, counts, total),) = histograms
    assert key == ("seconds", ())
    assert counts[0] == 1
    assert counts[-1] == 1
    assert total == BUCKETS[0] + 1e9
    assert counters.take() == ((), (), ())


def test_gauges_are_read_when_taken_and_can_be_dropped() -> None:
    counters = Counters()
    counters.gauge(lambda: 3, "active", cluster="a")
    counters.gauge(lambda: 4, "active", cluster="b")
    counters.drop_gauges(cluster="a")
    kept = (("active", (("cluster", "b"),)), 4.0)
    assert counters.take()[1] == ((("active", (("cluster", "a"),)), 0.0), kept)
    assert counters.take()[1] == (kept,)
