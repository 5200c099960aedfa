"""BlazeFace short range, from the network's raw output to boxes. Pure numpy.

MediaPipe's own decoding (Bazarevsky et al. 2019, "BlazeFace"; `face_detection_short_range.pbtxt`):
896 anchors on two grids, offsets in pixels of the 128×128 input, and overlapping boxes averaged by
their scores instead of dropped, which keeps the box from trembling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 128
"""Side of the network's square input in pixels."""
GRIDS = ((16, 2), (8, 6))
"""Cells a side of each grid, and anchors a cell."""
SAME_FACE = 0.3
"""Intersection over union from which on two boxes are the same face."""

Boxes = NDArray[np.float32]


def anchors() -> NDArray[np.float32]:
    """Centres of the anchors as shares of the input, `[896, 2]`; all have the input's size."""
    grids = []
    for cells, count in GRIDS:
        y, x = np.mgrid[0:cells, 0:cells]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        grids.append(np.repeat(centres, count, axis=0))
    return np.concatenate(grids).astype(np.float32)


def decode(
    offsets: NDArray[np.float32],
    logits: NDArray[np.float32],
    centres: NDArray[np.float32],
    min_score: float,
) -> tuple[Boxes, NDArray[np.float32]]:
    """Faces of one picture, in pixels of the 128×128 input, the surest first.

    Args:
        offsets: `[896, 16]`: centre x, y, width, height, then six points x, y (right eye, left
            eye, nose, mouth, right ear, left ear), in pixels from the anchor's centre.
        logits: `[896]`.
        centres: what `anchors` gives.
        min_score: boxes under this score are left out.

    Returns:
        boxes `[faces, 16]` laid out as `offsets` but absolute, and their scores `[faces]`.
    """
    scores = (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32)
    kept = np.flatnonzero(scores >= min_score)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    boxes = offsets[kept].copy()
    middle = centres[kept] * SIDE
    boxes[:, 0:2] += middle
    boxes[:, 4:] += np.tile(middle, 6)
    return _merged(boxes, scores[kept])


def _merged(boxes: Boxes, scores: NDArray[np.float32]) -> tuple[Boxes, NDArray[np.float32]]:
    """Boxes of the same face averaged by score; the face keeps the score of its surest box."""
    faces: list[NDArray[np.float32]] = []
    best: list[float] = []
    while len(boxes):
        same = overlaps(boxes[0], boxes) >= SAME_FACE
        same[0] = True
        faces.append(np.average(boxes[same], axis=0, weights=scores[same]))
        best.append(float(scores[0]))
        boxes, scores = boxes[~same], scores[~same]
    merged = np.stack(faces) if faces else np.zeros((0, 16))
    return merged.astype(np.float32), np.array(best, dtype=np.float32)


def overlaps(one: NDArray[np.float32], many: Boxes) -> NDArray[np.float32]:
    """Intersection over union of one box with each of many `[n, ≥4]`: `[n]`."""
    low = np.maximum(one[:2] - one[2:4] / 2, many[:, :2] - many[:, 2:4] / 2)
    high = np.minimum(one[:2] + one[2:4] / 2, many[:, :2] + many[:, 2:4] / 2)
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    union = one[2] * one[3] + many[:, 2] * many[:, 3] - both
    share: NDArray[np.float32] = both / np.maximum(union, 1e-6)
    return share
