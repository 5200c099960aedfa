"""Perception beside a live call: one thread, a short queue that drops its oldest frame."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from perception.affect import Affect, AffectClassifier
from perception.faces import FaceDetector, Frame
from perception.reading import FaceReader, Sampler
from perception.settings import Settings
from perception.windows import FrameReading, Window, WindowAggregator

log = logging.getLogger("geli.perception")

QUEUE_FRAMES = 4
TICK_S = 0.1
"""Audio tells the time 50 times a second; the thread need not wake for each."""


class AffectWorker:
    """Reads the frames of one call in its own daemon thread and hands out finished windows.

    `offer` and `advance` never block and may be called on the event loop; `close` waits for the
    thread, so call it elsewhere. A frame that a model fails on counts as one without a face, and
    the worker goes on: the first failure is logged with its traceback and kept in `failure`.
    """

    def __init__(
        self,
        detector: FaceDetector,
        classifier: AffectClassifier,
        settings: Settings,
        on_window: Callable[[Window], None],
    ) -> None:
        """Start the thread.

        Args:
            detector: may be shared with other calls; not closed here.
            classifier: may be shared with other calls.
            settings: rates, windows and the rule.
            on_window: called in the worker's thread with every finished window, in order.

        Raises:
            PerceptionError: the rule needs a valence that the classifier does not give.
        """
        self.dropped = 0
        """Frames that fell out of the full queue."""
        self.read = 0
        """Frames that the models have looked at."""
        self.failure: Exception | None = None
        """The first failure of a model or of `on_window`, if there was one."""
        self._reader = FaceReader(detector, classifier, settings)
        self._windows = WindowAggregator.of(settings)
        self._sampler = Sampler(settings.frames_hz)
        self._on_window = on_window
        self._changed = threading.Condition()
        # Under the condition's lock: written by the caller, read by the thread.
        self._queue: deque[tuple[Frame, float]] = deque(maxlen=QUEUE_FRAMES)
        self._time_s = 0.0
        self._ticked_s = 0.0
        self._tick = False
        self._working = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="geli-perception", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> bool:
        """Whether frames or ticks wait or are being worked on."""
        with self._changed:
            return bool(self._queue) or self._tick or self._working

    @property
    def late(self) -> int:
        """Frames that came out of order and were left out."""
        return self._windows.late

    def offer(self, frame_rgb: Frame, t_s: float) -> None:
        """Take a frame if it is due at `frames_hz`; never blocks. A full queue drops its oldest.

        Args:
            frame_rgb: RGB uint8 `[height, width, 3]`; not to be written to afterwards.
            t_s: its time on the session clock.
        """
        with self._changed:
            if self._closing or not self._sampler.take(t_s):
                return
            self.dropped += len(self._queue) == QUEUE_FRAMES
            self._queue.append((frame_rgb, t_s))
            self._time_s = max(self._time_s, t_s)
            self._changed.notify()

    def advance(self, t_s: float) -> None:
        """Tell the time, so that windows finish when no frames come; never blocks."""
        with self._changed:
            self._time_s = max(self._time_s, t_s)
            if self._time_s - self._ticked_s >= TICK_S and not self._closing:
                self._ticked_s = self._time_s
                self._tick = True
                self._changed.notify()

    def close(self) -> None:
        """Read what is queued, hand out all windows and wait for the thread. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.wait_for(lambda: self._queue or self._tick or self._closing)
                self._working = True
                item = self._queue.popleft() if self._queue else None
                now_s, ending = self._time_s, self._closing
                if item is None:
                    self._tick = False
            if item is not None:
                self._read(*item)
                continue
            self._hand_out(self._windows.advance(now_s))
            if ending:
                self._hand_out(self._windows.flush())
                with self._changed:
                    self._working = False
                return

    def _read(self, frame: Frame, t_s: float) -> None:
        affect: Affect | None = None
        self.read += 1
        try:
            affect = self._reader.read(frame, t_s)
        except Exception as error:  # the thread's edge: told, kept, and the call goes on
            self._failed(error, "a frame could not be read")
        self._hand_out(self._windows.feed(FrameReading(t_s, affect)))

    def _hand_out(self, windows: list[Window]) -> None:
        for window in windows:
            try:
                self._on_window(window)
            except Exception as error:  # the same edge: the listener's bug must not end the windows
                self._failed(error, "a window could not be handed out")

    def _failed(self, error: Exception, what: str) -> None:
        if self.failure is None:
            self.failure = error
            log.error("%s; further failures are not logged", what, exc_info=error)
