"""The settings of perception, checked once. Same field names as `agent.config.Perception`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from perception.errors import PerceptionError

RULES = ("mean_probability", "majority", "argmax", "valence")
"""How a window is called positive; see `perception.windows`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How faces are found, read and summed up into windows.

    Raises:
        PerceptionError: a value outside its range, named.
    """

    detector_score: float = 0.7
    """False faces reached 0.61 and true ones 0.83 on the images this was chosen on."""
    min_face_px: int = 48
    """Smaller faces are not read: the classifiers guess there."""
    frames_hz: float = 5.0
    """Frames analysed a second; the rest are skipped."""
    window_s: float = 2.0
    """The paper's window (section 4.2)."""
    hop_s: float = 1.0
    """Windows start every `hop_s`."""
    min_coverage: float = 0.5
    """A window that shows a face in a smaller share of its time is unknown."""
    positive_rule: str = "mean_probability"
    """One of `RULES`."""
    positive_threshold: float = 0.7
    """A probability, or for the rule `valence` a valence."""

    def __post_init__(self) -> None:
        if self.positive_rule not in RULES:
            raise PerceptionError(
                f"positive_rule = {self.positive_rule!r} is unknown; one of {', '.join(RULES)}"
            )
        for name in ("frames_hz", "window_s", "hop_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PerceptionError(f"{name} = {value} must be a number above 0")
        for name in ("detector_score", "min_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise PerceptionError(f"{name} = {getattr(self, name)} must lie in 0 to 1")
        if not -1 <= self.positive_threshold <= 1:
            raise PerceptionError(
                f"positive_threshold = {self.positive_threshold} must lie in -1 to 1"
            )
