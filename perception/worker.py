"""Perception beside a live call: one thread, a short queue that drops its oldest frame."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perception.affect import AffectClassifier
from perception.errors import PerceptionError
from perception.faces import FaceDetector, Frame, check_frame
from perception.reading import Engines, Reader, Sampler, check_rule, open_engines
from perception.settings import Settings
from perception.windows import FrameReading, Window, WindowAggregator

log = logging.getLogger(__name__)

QUEUE_FRAMES = 4
GRACE_S = 0.25
"""A frame is stamped when it arrives and offered after its conversion: a window waits this long."""
TICK_S = 0.1
"""Audio tells the time 50 times a second; the thread need not wake for each."""
FRESH_S = 1.0
"""`latest` is forgotten when time goes on this long without a frame (camera off)."""


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a worker did so far."""

    offered: int
    analysed: int
    dropped: int
    """Frames that fell out of the full queue."""
    late: int
    """Frames whose window was already finished."""
    busy_s: float
    """Time of the thread's own core."""


class AffectWorker:
    """Reads the frames of one call in its own thread and hands out finished windows.

    `offer` and `advance` never block and may be called on the event loop; `close` waits for the
    thread, so call it elsewhere (`asyncio.to_thread`). A failure of a model does not end the call:
    it is logged, kept in `error` and told to `on_error`; from then on no frame is read and the
    windows are unknown.
    """

    def __init__(
        self,
        detector: FaceDetector,
        classifier: AffectClassifier,
        settings: Settings,
        on_window: Callable[[Window], None],
        *,
        on_error: Callable[[Exception], None] | None = None,
        clock: Callable[[], float] = time.thread_time,
        close_engines: bool = False,
    ) -> None:
        """Start the thread.

        Args:
            detector: may be shared with other calls.
            classifier: may be shared with other calls.
            settings: rates, windows and the rule.
            on_window: called in the worker's thread with every finished window, in order.
            on_error: called in the worker's thread, once, with the first failure.
            clock: seconds of the calling thread's core, for `stats.busy_s`.
            close_engines: whether `close` closes the detector, too.

        Raises:
            PerceptionError: the rule needs a valence that the classifier does not give.
        """
        check_rule(settings, classifier)
        self.classifier_id = classifier.id
        self._engines = Engines(detector, classifier)
        self._close_engines = close_engines
        self._reader = Reader(self._engines, settings)
        self._windows = WindowAggregator.of(settings)
        self._sampler = Sampler(settings.frames_hz)
        self._on_window = on_window
        self._on_error = on_error
        self._clock = clock

        self._changed = threading.Condition()
        # Under the condition's lock: written by the caller, read by the thread.
        self._queue: deque[tuple[Frame, float]] = deque(maxlen=QUEUE_FRAMES)
        self._time_s = 0.0
        self._ticked_s = 0.0
        self._tick = False
        self._closing = False
        self._offered = 0
        self._dropped = 0
        # Written by the thread alone.
        self._error: Exception | None = None
        self._latest: FrameReading | None = None
        self._analysed = 0
        self._busy_s = 0.0
        self._thread = threading.Thread(target=self._run, name="perception", daemon=True)
        self._thread.start()

    @property
    def error(self) -> Exception | None:
        """The first failure, if there was one; labels are unknown since."""
        return self._error

    @property
    def latest(self) -> FrameReading | None:
        """The last frame read, or None before the first, after a failure and with no camera."""
        return self._latest

    @property
    def face_seen(self) -> bool:
        """Whether the user's face is in view now, for the page's indicator."""
        latest = self._latest
        return latest is not None and latest.affect is not None

    @property
    def stats(self) -> WorkerStats:
        """Counters so far; they may lag by a frame."""
        return WorkerStats(
            self._offered, self._analysed, self._dropped, self._windows.late, self._busy_s
        )

    def wants(self, t_s: float) -> bool:
        """Whether `offer` would take a frame of this time; spares the others their conversion."""
        with self._changed:
            return not self._closing and self._error is None and self._sampler.is_due(t_s)

    def offer(self, frame_rgb: Frame, t_s: float) -> None:
        """Take a frame if it is due at `frames_hz`; never blocks. A full queue drops its oldest.

        Args:
            frame_rgb: RGB uint8 `[height, width, 3]`; not to be written to afterwards.
            t_s: its time on the session clock.

        Raises:
            PerceptionError: no RGB uint8 frame, or a time that is no number.
        """
        check_frame(frame_rgb)
        if not math.isfinite(t_s):
            raise PerceptionError(f"a frame's time is {t_s}")
        with self._changed:
            if self._closing or self._error is not None or not self._sampler.take(t_s):
                return
            self._offered += 1
            self._dropped += len(self._queue) == QUEUE_FRAMES
            self._queue.append((frame_rgb, t_s))
            self._time_s = max(self._time_s, t_s)
            self._changed.notify()

    def advance(self, t_s: float) -> None:
        """Tell the time, so that windows finish when no frames come; never blocks."""
        with self._changed:
            self._time_s = max(self._time_s, t_s)
            if self._time_s - self._ticked_s >= TICK_S:
                self._ticked_s = self._time_s
                self._tick = True
                self._changed.notify()

    def close(self) -> None:
        """Read what is queued, finish the open windows and wait for the thread. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._close_engines:
            self._engines.close()

    def __enter__(self) -> AffectWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                item = self._queue.popleft() if self._queue else None
                now_s, ending = self._time_s, self._closing
                if item is None:
                    self._tick = False
            started = self._clock()
            if item is not None:
                self._read(*item)
            elif not ending:
                self._pass_time(now_s)
            else:
                self._hand_out(self._windows.advance(now_s))
                self._hand_out(self._windows.flush())
                self._latest = None
            self._busy_s += self._clock() - started
            if item is None and ending:
                return

    def _has_work(self) -> bool:
        return bool(self._queue) or self._tick or self._closing

    def _read(self, frame: Frame, t_s: float) -> None:
        if self._error is not None:
            return
        try:
            reading = self._reader.read(frame, t_s)
            windows = self._windows.add(reading)
        except Exception as error:  # the thread's edge: told, kept, and the call goes on
            self._fail(error)
            return
        self._latest = reading
        self._analysed += 1
        self._hand_out(windows)

    def _pass_time(self, now_s: float) -> None:
        latest = self._latest
        if latest is not None and now_s - latest.t_s > FRESH_S:
            self._latest = None
        self._hand_out(self._windows.advance(max(0.0, now_s - GRACE_S)))

    def _hand_out(self, windows: list[Window]) -> None:
        for window in windows:
            try:
                self._on_window(window)
            except Exception as error:  # the same edge: a full disk must not end the windows
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        self._latest = None
        log.error("perception failed; labels are unknown from here on", exc_info=error)
        if self._on_error is not None:
            self._on_error(error)


def open_worker(
    settings: Settings,
    detector_path: Path,
    classifier_path: Path,
    on_window: Callable[[Window], None],
    *,
    on_error: Callable[[Exception], None] | None = None,
) -> AffectWorker:
    """A worker with models of its own, which it closes.

    Raises:
        PerceptionError: unknown engine, unusable weights, or a rule the classifier cannot serve.
    """
    engines = open_engines(settings, detector_path, classifier_path)
    return AffectWorker(
        engines.detector,
        engines.classifier,
        settings,
        on_window,
        on_error=on_error,
        close_engines=True,
    )
