"""The worker beside a call: never blocks, drops the oldest, says what failed and goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from perception.errors import PerceptionError
from perception.reading import Sampler
from perception.settings import Settings
from perception.windows import Window
from perception.worker import QUEUE_FRAMES, AffectWorker
from tests.perception.doubles import ColourClassifier, ColourDetector, broken, picture

pytestmark = pytest.mark.unit

SETTINGS = Settings(min_face_px=8)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "did not come true in 30 s"
        time.sleep(0.001)


def worker(
    windows: list[Window],
    detector: ColourDetector | None = None,
    settings: Settings = SETTINGS,
) -> AffectWorker:
    return AffectWorker(detector or ColourDetector(), ColourClassifier(), settings, windows.append)


def test_a_call_in_windows() -> None:
    windows: list[Window] = []
    watching = worker(windows)
    for n in range(20):
        watching.offer(picture(0.1 if n < 10 else 0.9), n / 5)
        until(lambda: not watching.behind)
    assert [w.positive for w in windows] == [False, False]
    watching.advance(4.0)
    until(lambda: not watching.behind)
    assert [w.positive for w in windows] == [False, False, True]
    watching.close()
    assert [(w.index, w.start_s, w.end_s) for w in windows] == [
        (0, 0.0, 2.0), (1, 1.0, 3.0), (2, 2.0, 4.0), (3, 3.0, 4.0),
    ]  # fmt: skip
    assert watching.failure is None and watching.dropped == 0 and watching.late == 0


def test_a_full_queue_drops_its_oldest_and_never_blocks() -> None:
    gate = threading.Event()
    detector = ColourDetector(gate)
    watching = worker([], detector)
    watching.offer(picture(0.01), 0.0)
    assert detector.entered.wait(30)  # the model has the first frame and keeps it
    for n in range(1, 11):
        watching.offer(picture(n / 100 + 0.01), n / 5)  # a blocking offer would hang the test here
        watching.advance(n / 5)
    assert watching.behind
    assert watching.dropped == 10 - QUEUE_FRAMES
    gate.set()
    watching.close()
    assert detector.frames == [1, 8, 9, 10, 11]


def test_frames_are_thinned_to_the_rate() -> None:
    detector = ColourDetector()
    watching = worker([], detector)
    for n in range(60):  # 30 a second
        watching.offer(picture(0.5), n / 30)
        until(lambda: not watching.behind)
    watching.close()
    assert len(detector.frames) == 10


@pytest.mark.parametrize("rate_hz", [5.0, 7.5, 15.0, 30.0, 59.94])
def test_a_sampler_keeps_its_rate(rate_hz: float) -> None:
    sampler = Sampler(5.0)
    taken = [t for n in range(int(20 * rate_hz)) if sampler.take(t := n / rate_hz)]
    assert len(taken) == pytest.approx(100, abs=2)
    assert max(b - a for a, b in zip(taken, taken[1:], strict=False)) < 0.2 + 1.01 / rate_hz


def test_time_without_frames_ends_windows_as_unknown() -> None:
    windows: list[Window] = []
    watching = worker(windows)
    for n in range(1, 251):
        watching.advance(n * 0.02)
    until(lambda: not watching.behind)
    assert [w.index for w in windows] == [0, 1, 2, 3]
    watching.close()
    assert {(w.face_found, w.positive) for w in windows} == {(False, None)}


def test_a_failing_frame_is_no_face_and_the_first_failure_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    windows: list[Window] = []
    watching = worker(windows)
    with caplog.at_level(logging.ERROR, logger="geli.perception"):
        for n in range(20):
            watching.offer(broken() if n < 10 else picture(0.9), n / 5)
            until(lambda: not watching.behind)
        watching.advance(4.0)
        watching.close()
    assert isinstance(watching.failure, RuntimeError)
    assert [r.name for r in caplog.records] == ["geli.perception"]
    assert caplog.records[0].exc_info is not None
    assert "the model broke" in caplog.text
    assert [w.positive for w in windows] == [None, True, True, True]
    assert [w.coverage for w in windows] == [0.0, 0.5, 1.0, 1.0]


def test_a_frame_of_a_wrong_shape_is_a_failing_frame() -> None:
    windows: list[Window] = []
    watching = worker(windows)
    watching.offer(picture(0.5)[..., 0], 0.0)  # gray
    watching.close()
    assert watching.failure is not None
    assert [w.positive for w in windows] == [None]


def test_a_failing_receiver_does_not_end_the_windows(caplog: pytest.LogCaptureFixture) -> None:
    got: list[int] = []

    def receive(window: Window) -> None:
        got.append(window.index)
        raise OSError("the disk is full")

    watching = AffectWorker(ColourDetector(), ColourClassifier(), SETTINGS, receive)
    watching.advance(4.0)
    watching.close()
    assert got == [0, 1, 2, 3]
    assert isinstance(watching.failure, OSError)
    assert len(caplog.records) == 1


def test_closing_twice_and_offering_after_it() -> None:
    windows: list[Window] = []
    watching = worker(windows)
    watching.offer(picture(0.9), 0.0)
    watching.close()
    count = len(windows)
    assert count == 1
    watching.offer(picture(0.9), 5.0)
    watching.advance(9.0)
    assert not watching.behind
    watching.close()
    assert len(windows) == count


def test_calls_share_models_and_nothing_else() -> None:
    detector, classifier = ColourDetector(), ColourClassifier()
    results: list[list[Window]] = [[] for _ in range(4)]
    workers = [AffectWorker(detector, classifier, SETTINGS, r.append) for r in results]
    for n in range(15):
        for number, watching in enumerate(workers):
            watching.offer(picture(number / 4 + 0.2), n / 5)
            until(lambda watching=watching: not watching.behind)  # type: ignore[misc]
    for watching in workers:
        watching.close()
    means = [[w.probabilities["happy"] for w in r if w.probabilities] for r in results]
    for number, mean in enumerate(means):
        assert len(mean) == 2
        assert mean == pytest.approx([number / 4 + 0.2] * 2)
    assert not detector.closed


def test_the_rule_is_checked_at_the_start() -> None:
    with pytest.raises(PerceptionError, match="valence"):
        worker([], settings=Settings(positive_rule="valence"))
