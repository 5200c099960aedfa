"""Windows on a fixed grid: order, coverage, what is unknown, and the rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.affect import Affect
from perception.errors import PerceptionError
from perception.settings import Settings
from perception.windows import FrameReading, Window, WindowAggregator

pytestmark = pytest.mark.unit

TICK = 1 / 64
"""Times are multiples of it: exact in binary, so that the reference can count cells."""
GRIDS = st.sampled_from([(2.0, 1.0), (2.0, 2.0), (1.0, 2.0), (2.0, 0.5), (0.5, 0.25)])


def shown(happy: float | None, valence: float | None = None) -> Affect | None:
    return None if happy is None else Affect({"happy": happy, "neutral": 1 - happy}, valence)


@st.composite
def recordings(draw: st.DrawFn) -> list[FrameReading]:
    """Frames in order, with stretches in which none came."""
    steps = st.one_of(st.integers(1, 20), st.integers(40, 400))
    faces = st.one_of(st.none(), st.integers(0, 100).map(lambda p: p / 100))
    readings, tick = [], draw(st.integers(0, 100))
    for step, happy in draw(st.lists(st.tuples(steps, faces), max_size=60)):
        readings.append(FrameReading(tick * TICK, shown(happy)))
        tick += step
    return readings


def run(
    aggregator: WindowAggregator, readings: list[FrameReading], end_s: float | None = None
) -> list[Window]:
    windows = [window for reading in readings for window in aggregator.feed(reading)]
    windows += aggregator.advance(end_s) if end_s is not None else []
    return windows + aggregator.flush()


@given(recordings(), GRIDS, st.integers(0, 500))
def test_windows_lie_on_the_grid_in_order_and_without_gaps(
    readings: list[FrameReading], grid: tuple[float, float], more: int
) -> None:
    window_s, hop_s = grid
    end_s = (readings[-1].t_s if readings else 0.0) + more * TICK
    windows = run(WindowAggregator(window_s, hop_s), readings, end_s)
    assert [w.index for w in windows] == list(range(len(windows)))
    assert [w.start_s for w in windows] == [w.index * hop_s for w in windows]
    assert all(w.end_s == min(w.start_s + window_s, end_s) for w in windows)
    assert all(w.end_s - w.start_s >= window_s / 2 for w in windows[1:])
    # Nothing that is at least half over is missing.
    assert windows and end_s - len(windows) * hop_s < window_s / 2


@given(recordings(), GRIDS, st.integers(0, 500))
def test_coverage_counts_frames_with_a_face_and_what_was_watched(
    readings: list[FrameReading], grid: tuple[float, float], more: int
) -> None:
    end_s = (readings[-1].t_s if readings else 0.0) + more * TICK
    for window in run(WindowAggregator(*grid, min_coverage=0.5), readings, end_s):
        # The recording's own last instant belongs to a window that it cuts.
        cut = window.end_s < window.start_s + grid[0]
        inside = [
            r
            for r in readings
            if window.start_s <= r.t_s and (r.t_s < window.end_s or (cut and r.t_s == end_s))
        ]
        share = sum(r.affect is not None for r in inside) / len(inside) if inside else 0.0
        assert window.coverage == pytest.approx(share * watched(readings, window))


def watched(readings: list[FrameReading], window: Window) -> float:
    """The slow reference: cell by cell, is there a frame (or an end) within a second's stretch?"""
    marks = [0.0, *(r.t_s for r in readings if r.t_s < window.end_s), window.end_s]
    first, last = round(window.start_s / TICK), round(window.end_s / TICK)
    if first == last:
        return 1.0
    seen = 0
    for cell in range(first, last):
        before = max(mark for mark in marks if mark <= cell * TICK)
        after = min(mark for mark in marks if mark > cell * TICK)
        seen += after - before <= 1.0
    return seen / (last - first)


@given(recordings(), GRIDS, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_too_little_face_is_unknown_and_not_neutral(
    readings: list[FrameReading], grid: tuple[float, float], min_coverage: float
) -> None:
    for window in run(WindowAggregator(*grid, min_coverage=min_coverage), readings):
        known = window.coverage > 0 and window.coverage >= min_coverage
        assert window.face_found is known
        assert (window.positive is not None) is known
        assert (window.probabilities is not None) is known
        assert window.valence is None
        if window.probabilities is not None:
            assert sum(window.probabilities.values()) == pytest.approx(1.0)
            assert window.positive is (window.probabilities["happy"] >= 0.7)


@given(recordings(), GRIDS, st.lists(st.integers(0, 64), max_size=60))
def test_telling_the_time_between_frames_changes_nothing(
    readings: list[FrameReading], grid: tuple[float, float], ticks: list[int]
) -> None:
    plain, told = WindowAggregator(*grid), WindowAggregator(*grid)
    expected = run(plain, readings)
    windows: list[Window] = []
    for number, reading in enumerate(readings):
        windows += told.feed(reading)
        next_s = readings[number + 1].t_s if number + 1 < len(readings) else reading.t_s
        between = ticks[number] * TICK if number < len(ticks) else 0.0
        windows += told.advance(min(next_s, reading.t_s + between))
    assert windows + told.flush() == expected
    assert told.late == plain.late == 0


@given(recordings(), st.lists(st.tuples(st.integers(0, 59), st.integers(1, 500)), max_size=10))
def test_frames_out_of_order_are_dropped_and_counted(
    readings: list[FrameReading], strays: list[tuple[int, int]]
) -> None:
    aggregator = WindowAggregator()
    windows: list[Window] = []
    sent = 0
    for number, reading in enumerate(readings):
        windows += aggregator.feed(reading)
        for after, back in strays:
            if after == number:
                windows += aggregator.feed(FrameReading(reading.t_s - back * TICK, shown(1.0)))
                sent += 1
    assert aggregator.late == sent
    assert windows + aggregator.flush() == run(WindowAggregator(), readings)


def steady(happy: list[float | None], hz: float = 4.0) -> list[FrameReading]:
    return [FrameReading(n / hz, shown(p)) for n, p in enumerate(happy)]


@pytest.mark.parametrize(
    ("rule", "threshold", "happy", "positive"),
    [
        ("mean_probability", 0.7, [0.6, 0.8], True),
        ("mean_probability", 0.7, [0.6, 0.7], False),
        ("majority", 0.7, [0.7, 0.8, 0.0], True),
        ("majority", 0.7, [1.0, 0.0], False),
        ("argmax", 0.7, [0.6, 0.5], True),
        ("argmax", 0.7, [0.4, 0.4], False),
    ],
)
def test_rules(rule: str, threshold: float, happy: list[float | None], positive: bool) -> None:
    aggregator = WindowAggregator(rule=rule, threshold=threshold)
    (window,) = run(aggregator, steady([*happy, None]), 1.0)
    assert window.positive is positive


def test_the_valence_rule_reads_valence_and_nothing_else() -> None:
    for valence, positive in ((0.25, True), (0.125, False)):
        aggregator = WindowAggregator(hop_s=2.0, rule="valence", threshold=0.25)
        frames = [FrameReading(n / 4, shown(1.0, valence)) for n in range(8)]
        (window,) = run(aggregator, frames, 2.0)
        assert window.positive is positive
        assert window.valence == pytest.approx(valence)
    with pytest.raises(PerceptionError, match="valence"):
        WindowAggregator(rule="valence").feed(FrameReading(0.0, shown(1.0)))


def test_happiness_counts_under_any_name() -> None:
    for label in ("happy", "Happiness", "HAPPY"):
        aggregator = WindowAggregator(rule="argmax")
        (window,) = run(aggregator, [FrameReading(0.0, Affect({label: 0.8, "anger": 0.2}))], 0.2)
        assert window.positive is True


def test_a_camera_switched_off_leaves_windows_unknown() -> None:
    aggregator = WindowAggregator()
    windows = run(aggregator, steady([1.0] * 17), 9.0)  # the last frame is at 4 s
    assert [w.positive for w in windows] == [True, True, True, True, *[None] * 5]
    assert [w.coverage for w in windows[3:6]] == [1.0, 0.0, 0.0]


def test_one_frame_does_not_speak_for_two_seconds() -> None:
    (window,) = run(WindowAggregator(hop_s=2.0), [FrameReading(1.9, shown(1.0))], 2.0)
    assert window.coverage == pytest.approx(0.05)
    assert window.positive is None


def test_a_tail_less_than_half_over_is_left_out() -> None:
    assert [w.end_s for w in run(WindowAggregator(hop_s=2.0), steady([1.0] * 9), 2.9)] == [2.0]
    assert [w.end_s for w in run(WindowAggregator(hop_s=2.0), steady([1.0] * 9), 3.0)] == [2.0, 3.0]
    assert [w.end_s for w in run(WindowAggregator(), steady([1.0]), 0.1)] == [0.1]


def test_nothing_follows_a_flush() -> None:
    aggregator = WindowAggregator()
    assert aggregator.flush() == []
    assert len(run(aggregator, steady([1.0] * 5))) == 1
    assert aggregator.feed(FrameReading(9.0, None)) == []
    assert aggregator.late == 1
    assert aggregator.advance(20.0) == aggregator.flush() == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_time_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(PerceptionError, match="time"):
        WindowAggregator().feed(FrameReading(bad, None))
    with pytest.raises(PerceptionError, match="time"):
        WindowAggregator().advance(bad)


def test_bad_settings_are_named() -> None:
    with pytest.raises(PerceptionError, match="mean_probability, majority, argmax, valence"):
        WindowAggregator(rule="mood")
    with pytest.raises(PerceptionError, match="hop_s"):
        WindowAggregator(hop_s=0.0)
    for name, value in (("positive_rule", "mood"), ("window_s", 0.0), ("min_coverage", 1.1)):
        with pytest.raises(PerceptionError, match=name):
            Settings(**{name: value})  # type: ignore[arg-type]
