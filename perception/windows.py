"""Sliding windows of facial affect: frames in, finished windows out. Pure, no clock.

Window k spans [k·hop, k·hop + length) on the session clock, so that two runs over the same frames
give the same windows. A window is *positive*, *not positive* or, when too little of it showed a
face, *unknown*: a missing face is not a neutral one. Γ of the paper (eq. 7) is `positive`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from perception.affect import Affect, positive_probability
from perception.errors import PerceptionError
from perception.settings import RULES, Settings

SHORT_OF_FRAMES = 0.5
"""A window that got a smaller share of the frames it should have is filled up with unseen ones."""


@dataclass(frozen=True, slots=True)
class FrameReading:
    """What one analysed frame showed."""

    t_s: float
    affect: Affect | None
    """None: no face."""


@dataclass(frozen=True, slots=True)
class Window:
    """One finished window."""

    index: int
    start_s: float
    end_s: float
    """`start_s` + length, or the end of the recording where that came first."""
    face_found: bool
    """Whether a face was seen for enough of it; False means unknown."""
    coverage: float
    """Share of the window's frames with a face, 0 to 1."""
    probabilities: dict[str, float] | None
    """Mean over the frames with a face; None without one."""
    valence: float | None
    """Mean over the frames with a face, where the classifier gives it."""
    positive: bool | None
    """None: unknown."""


@dataclass(slots=True)
class _Open:
    frames: int = 0
    seen: int = 0
    high: int = 0
    """Frames whose P(positive) reached the threshold."""
    sums: dict[str, float] = field(default_factory=dict)
    valence: float = 0.0
    has_valence: bool = False


class WindowAggregator:
    """Collects frame readings into windows on a fixed grid.

    Readings should come in time order. One that belongs to a window which is already finished is
    dropped and counted in `late`; any other is taken, whatever the order.
    """

    def __init__(
        self,
        *,
        window_s: float = 2.0,
        hop_s: float = 1.0,
        min_coverage: float = 0.5,
        rule: str = "mean_probability",
        threshold: float = 0.7,
        frames_hz: float | None = None,
    ) -> None:
        """Start at time 0 with nothing seen.

        Args:
            window_s: length of a window.
            hop_s: time between the starts of two windows.
            min_coverage: a smaller share of frames with a face leaves the window unknown.
            rule: `mean_probability` (mean P(positive) ≥ threshold), `majority` (more than half of
                the frames with a face have P(positive) ≥ threshold), `argmax` (happiness is the
                most likely class of the mean), `valence` (mean valence ≥ threshold).
            threshold: see `rule`.
            frames_hz: the rate at which frames should come. Given, a window with less than half
                of its frames (camera switched on at its end) counts the rest of that half as
                unseen; else one frame would speak for two seconds.

        Raises:
            PerceptionError: an unknown rule, or a time that is not above 0.
        """
        if rule not in RULES:
            raise PerceptionError(f"no rule {rule!r} for windows; one of {', '.join(RULES)}")
        if not (window_s > 0 and hop_s > 0 and math.isfinite(window_s + hop_s)):
            raise PerceptionError(f"window_s = {window_s} and hop_s = {hop_s} must be above 0")
        self.window_s = window_s
        self.hop_s = hop_s
        self.late = 0
        self._min_coverage = min_coverage
        self._rule = rule
        self._threshold = threshold
        self._frames_hz = frames_hz
        self._open: dict[int, _Open] = {}
        self._next = 0
        """Index of the first window that is not finished."""
        self._now_s = 0.0

    @classmethod
    def of(cls, settings: Settings, frames_hz: float | None = None) -> WindowAggregator:
        """The aggregator that `settings` describe; `frames_hz` where the source is slower."""
        return cls(
            window_s=settings.window_s,
            hop_s=settings.hop_s,
            min_coverage=settings.min_coverage,
            rule=settings.positive_rule,
            threshold=settings.positive_threshold,
            frames_hz=frames_hz or settings.frames_hz,
        )

    def add(self, reading: FrameReading) -> list[Window]:
        """Take one reading; the windows that its time finishes, in order.

        Raises:
            PerceptionError: a time that is no number, or no valence for the rule `valence`.
        """
        t_s = reading.t_s
        if not math.isfinite(t_s):
            raise PerceptionError(f"a frame's time is {t_s}")
        affect = reading.affect
        if self._rule == "valence" and affect is not None and affect.valence is None:
            raise PerceptionError("the rule 'valence' needs a classifier that gives valence")
        if t_s < 0 or (self._next > 0 and t_s < self._end(self._next - 1)):
            self.late += 1
            return []
        finished = self.advance(t_s)
        for index in self._covering(t_s):
            self._count(self._open.setdefault(index, _Open()), affect)
        return finished

    def advance(self, t_s: float) -> list[Window]:
        """Let time pass without a frame; the windows that end by `t_s`, in order."""
        if not math.isfinite(t_s):
            raise PerceptionError(f"time cannot advance to {t_s}")
        self._now_s = max(self._now_s, t_s)
        finished = []
        while self._end(self._next) <= self._now_s:
            finished.append(self._close(self._next, self._end(self._next)))
            self._next += 1
        return finished

    def flush(self) -> list[Window]:
        """Finish the windows that have begun, cut at the latest time seen; nothing may follow."""
        finished = []
        while self._start(self._next) < self._now_s or self._next in self._open:
            end_s = min(self._end(self._next), max(self._now_s, self._start(self._next)))
            finished.append(self._close(self._next, end_s))
            self._next += 1
        return finished

    def _start(self, index: int) -> float:
        return index * self.hop_s

    def _end(self, index: int) -> float:
        return index * self.hop_s + self.window_s

    def _covering(self, t_s: float) -> list[int]:
        """Indices of the windows with start ≤ t < end."""
        last = int(t_s / self.hop_s) + 1  # one more: the division rounds
        first = max(0, int((t_s - self.window_s) / self.hop_s) - 1)
        return [k for k in range(first, last + 1) if self._start(k) <= t_s < self._end(k)]

    def _count(self, window: _Open, affect: Affect | None) -> None:
        window.frames += 1
        if affect is None:
            return
        window.seen += 1
        window.high += affect.positive >= self._threshold
        for label, probability in affect.probabilities.items():
            window.sums[label] = window.sums.get(label, 0.0) + probability
        if affect.valence is not None:
            window.valence += affect.valence
            window.has_valence = True

    def _close(self, index: int, end_s: float) -> Window:
        window = self._open.pop(index, _Open())
        start_s = self._start(index)
        frames: float = window.frames
        if self._frames_hz is not None:
            frames = max(frames, SHORT_OF_FRAMES * self._frames_hz * (end_s - start_s))
        coverage = min(1.0, window.seen / frames) if window.frames else 0.0
        found = window.seen > 0 and coverage >= self._min_coverage
        seen = window.seen
        mean = {k: min(1.0, v / seen) for k, v in window.sums.items()} if seen else None
        valence = window.valence / seen if window.has_valence else None
        return Window(
            index=index,
            start_s=start_s,
            end_s=end_s,
            face_found=found,
            coverage=coverage,
            probabilities=mean,
            valence=valence,
            positive=self._positive(window, mean, valence) if found and mean else None,
        )

    def _positive(self, window: _Open, mean: dict[str, float], valence: float | None) -> bool:
        if self._rule == "majority":
            return window.high * 2 > window.seen
        if self._rule == "argmax":
            return positive_probability({max(mean, key=mean.__getitem__): 1.0}) > 0
        if self._rule == "valence":
            return valence is not None and valence >= self._threshold
        return positive_probability(mean) >= self._threshold
