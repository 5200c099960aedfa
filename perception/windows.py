"""Sliding windows of facial affect: frames in, finished windows out. Pure, no clock.

Window k spans [k·hop, k·hop + length) on the session clock, so that two runs over the same frames
give the same windows. A window is *positive*, *not positive* or, when too little of it showed a
face, *unknown*: a missing face is not a neutral one. Γ of the paper (eq. 7) is `positive`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from perception.affect import Affect, is_positive, positive_probability
from perception.errors import PerceptionError
from perception.settings import RULES, Settings

BLIND_S = 1.0
"""A longer stretch without any frame was not watched; a shorter one is a slow camera."""


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
    """`start_s` + length, or the last time told where that came first."""
    face_found: bool
    """Whether a face was seen for enough of it; False means unknown."""
    coverage: float
    """Share of the analysed frames with a face × share of the window that was watched, 0 to 1."""
    probabilities: dict[str, float] | None
    """Mean over the frames with a face; None when unknown."""
    valence: float | None
    """Mean over the frames with a face, where the classifier gives it; None when unknown."""
    positive: bool | None
    """None: unknown."""


class WindowAggregator:
    """Collects frame readings into windows on a fixed grid, without gaps.

    Frames come in time order. One that is older than the frame before it, or than the end of a
    finished window, is dropped and counted in `late`.
    """

    def __init__(
        self,
        window_s: float = 2.0,
        hop_s: float = 1.0,
        min_coverage: float = 0.5,
        rule: str = "mean_probability",
        threshold: float = 0.7,
    ) -> None:
        """Start at time 0 with nothing seen.

        Args:
            window_s: length of a window.
            hop_s: time between the starts of two windows.
            min_coverage: a smaller coverage leaves the window unknown.
            rule: `mean_probability` (mean P(positive) ≥ threshold), `majority` (more than half of
                the frames with a face have P(positive) ≥ threshold), `argmax` (happiness is the
                most likely class of the mean), `valence` (mean valence ≥ threshold).
            threshold: see `rule`.

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
        self._next = 0  # index of the first window that is not finished
        self._frames: deque[FrameReading] = deque()  # that a window to come may hold
        self._before_s = 0.0  # the last frame before those, or the start
        self._last_frame_s = 0.0
        self._now_s = 0.0
        self._told = False
        self._flushed = False

    @classmethod
    def of(cls, settings: Settings) -> WindowAggregator:
        """The aggregator that `settings` describe."""
        return cls(
            window_s=settings.window_s,
            hop_s=settings.hop_s,
            min_coverage=settings.min_coverage,
            rule=settings.positive_rule,
            threshold=settings.positive_threshold,
        )

    def feed(self, reading: FrameReading) -> list[Window]:
        """Take one reading; the windows that its time finishes, in order.

        Raises:
            PerceptionError: a time that is no number, or no valence for the rule `valence`.
        """
        t_s, affect = reading.t_s, reading.affect
        if not math.isfinite(t_s):
            raise PerceptionError(f"a frame's time is {t_s}")
        if self._rule == "valence" and affect is not None and affect.valence is None:
            raise PerceptionError("the rule 'valence' needs a classifier that gives valence")
        finished_s = self._end(self._next - 1) if self._next else 0.0
        if self._flushed or t_s < max(self._last_frame_s, finished_s):
            self.late += 1
            return []
        finished = self.advance(t_s)
        self._frames.append(reading)
        self._last_frame_s = t_s
        return finished

    def advance(self, t_s: float) -> list[Window]:
        """Let time pass without a frame; the windows that end by `t_s`, in order.

        Raises:
            PerceptionError: a time that is no number.
        """
        if not math.isfinite(t_s):
            raise PerceptionError(f"time cannot advance to {t_s}")
        if self._flushed:
            return []
        self._told = True
        self._now_s = max(self._now_s, t_s)
        finished = []
        while self._end(self._next) <= self._now_s:
            finished.append(self._close(self._end(self._next)))
        return finished

    def flush(self) -> list[Window]:
        """Finish the windows that have begun, cut at the last time told; nothing may follow.

        A window less than half over is left out: it says little, and its start lies in the one
        before. Window 0 is kept, so that the shortest recording has one.
        """
        finished: list[Window] = []
        if self._flushed or not self._told:
            return finished
        while self._next == 0 or self._now_s - self._start(self._next) >= self.window_s / 2:
            finished.append(self._close(min(self._end(self._next), self._now_s)))
        self._flushed = True
        return finished

    def _start(self, index: int) -> float:
        return index * self.hop_s

    def _end(self, index: int) -> float:
        return index * self.hop_s + self.window_s

    def _close(self, end_s: float) -> Window:
        """Finish the next window, which ends here, and forget what no later one holds."""
        index = self._next
        start_s = self._start(index)
        # `end_s` is in no window that ends there, unless the recording does.
        inside = [f for f in self._frames if f.t_s < end_s or end_s < self._end(index)]
        inside = [f for f in inside if f.t_s >= start_s]
        times = [self._before_s, *(f.t_s for f in self._frames if f.t_s < end_s), end_s]
        watched = 1.0 - blind_share(times, start_s, end_s)
        window = self._sum_up(index, start_s, end_s, inside, watched)
        self._next += 1
        while self._frames and self._frames[0].t_s < self._start(self._next):
            self._before_s = self._frames.popleft().t_s
        return window

    def _sum_up(
        self, index: int, start_s: float, end_s: float, inside: list[FrameReading], watched: float
    ) -> Window:
        seen = [frame.affect for frame in inside if frame.affect is not None]
        coverage = len(seen) / len(inside) * watched if inside else 0.0
        if not coverage or coverage < self._min_coverage:
            return Window(index, start_s, end_s, False, coverage, None, None, None)
        mean = _mean(seen)
        values = [affect.valence for affect in seen if affect.valence is not None]
        valence = sum(values) / len(values) if values else None
        positive = self._positive(seen, mean, valence)
        return Window(index, start_s, end_s, True, coverage, mean, valence, positive)

    def _positive(
        self, seen: Sequence[Affect], mean: dict[str, float], valence: float | None
    ) -> bool:
        if self._rule == "majority":
            return 2 * sum(affect.positive >= self._threshold for affect in seen) > len(seen)
        if self._rule == "argmax":
            return is_positive(max(mean, key=mean.__getitem__))
        if self._rule == "valence":
            return valence is not None and valence >= self._threshold
        return positive_probability(mean) >= self._threshold


def blind_share(times: Sequence[float], start_s: float, end_s: float) -> float:
    """Share of [start, end) that lies in stretches of more than `BLIND_S` between two `times`."""
    if end_s <= start_s:
        return 0.0
    blind = sum(
        max(0.0, min(after, end_s) - max(before, start_s))
        for before, after in zip(times, times[1:], strict=False)
        if after - before > BLIND_S
    )
    return min(1.0, blind / (end_s - start_s))


def _mean(seen: Sequence[Affect]) -> dict[str, float]:
    """Mean probabilities, over whatever classes there are."""
    labels = dict.fromkeys(label for affect in seen for label in affect.probabilities)
    return {
        label: min(1.0, sum(affect.probabilities.get(label, 0.0) for affect in seen) / len(seen))
        for label in labels
    }
