"""One face among several: the largest central one, kept while it can be followed. Pure.

Without it the label would jump to whoever walks past behind the user.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from perception.faces import Face

GONE_S = 2.0
"""The followed face may be away this long before another may take its place."""
MIN_OVERLAP = 0.3
"""Intersection over union that makes two boxes the same face."""
MAX_STEP = 0.75
"""Or: centres this near, in sides of the box; a neighbour's face is further away."""
MAX_GROWTH = 2.0
"""Nobody's face doubles or halves between two analysed frames."""


class FaceTracker:
    """Follows one face from frame to frame.

    While the followed face is away there is no face at all: a bystander's face is not the user's.
    Once it has been gone for more than `GONE_S`, or no frame came for as long, the best face in
    view is taken.
    """

    def __init__(self) -> None:
        """Start with nobody followed."""
        self._face: Face | None = None
        self._seen_s = 0.0
        self._frame_s = 0.0

    def reset(self) -> None:
        """Follow nobody."""
        self._face = None

    def pick(self, faces: Sequence[Face], width: int, height: int, t_s: float) -> Face | None:
        """The followed face in this frame, or None while it is not seen.

        Args:
            faces: all faces of the frame, in any order.
            width: the frame's width in pixels.
            height: the frame's height in pixels.
            t_s: the frame's time; frames come in order.
        """
        if t_s - self._frame_s > GONE_S:
            self.reset()
        self._frame_s = t_s
        found = None if self._face is None else match(self._face, faces)
        if found is None and (self._face is None or t_s - self._seen_s > GONE_S):
            self.reset()
            found = choose(faces, width, height)
        if found is not None:
            self._face, self._seen_s = found, t_s
        return found


def choose(faces: Sequence[Face], width: int, height: int) -> Face | None:
    """The largest central face: area × exp(−(2 d)²), d = distance from the middle in diagonals."""
    if not faces:
        return None
    diagonal = math.hypot(width, height)

    def weight(face: Face) -> float:
        x, y = face.centre
        away = math.hypot(x - width / 2, y - height / 2) / diagonal
        return face.area * math.exp(-((2 * away) ** 2))

    return max(faces, key=weight)


def match(last: Face, faces: Sequence[Face]) -> Face | None:
    """The face that continues `last`, if any: the best overlap, else the nearest that could be.

    How long ago `last` was seen plays no part: a reach that grows would soon hold a neighbour.
    """
    alike = [face for face in faces if _same_size(last, face)]
    overlapping = [face for face in alike if overlap(last, face) >= MIN_OVERLAP]
    if overlapping:
        return max(overlapping, key=lambda face: overlap(last, face))
    reach = MAX_STEP * max(last.width, last.height)
    near = [face for face in alike if _distance(last, face) <= reach]
    return min(near, key=lambda face: _distance(last, face), default=None)


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / (a.area + b.area - both)


def _same_size(a: Face, b: Face) -> bool:
    return a.area > 0 and b.area > 0 and 1 / MAX_GROWTH <= a.width / b.width <= MAX_GROWTH


def _distance(a: Face, b: Face) -> float:
    return math.dist(a.centre, b.centre)
