"""Decoding BlazeFace's raw output: anchors, offsets, and boxes of one face averaged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception import blazeface

pytestmark = pytest.mark.unit

COUNT = 896
SURE, NO = 4.0, -20.0


def raw(**boxes: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and logits in which anchor `a<n>` holds a box (dx, dy, side, logit)."""
    offsets = np.zeros((COUNT, 16), np.float32)
    logits = np.full(COUNT, NO, np.float32)
    for name, (dx, dy, side, logit) in boxes.items():
        index = int(name[1:])
        offsets[index, :4] = dx, dy, side, side
        offsets[index, 4:8] = dx - side / 5, dy, dx + side / 5, dy
        logits[index] = logit
    return offsets, logits


def test_anchors_are_two_grids() -> None:
    centres = blazeface.anchors()
    assert centres.shape == (COUNT, 2)
    assert np.allclose(centres[0], 0.5 / 16) and np.allclose(centres[1], centres[0])
    assert np.allclose(centres[2], [1.5 / 16, 0.5 / 16])  # x goes first
    assert np.allclose(centres[512], 0.5 / 8) and np.allclose(centres[-1], 7.5 / 8)


@settings(deadline=None)
@given(
    index=st.integers(0, COUNT - 1),
    dx=st.floats(-20, 20),
    dy=st.floats(-20, 20),
    side=st.floats(4, 100),
)
def test_a_box_lies_at_its_anchor_plus_its_offset(
    index: int, dx: float, dy: float, side: float
) -> None:
    centres = blazeface.anchors()
    boxes, scores = blazeface.decode(*raw(**{f"a{index}": (dx, dy, side, SURE)}), centres, 0.7)
    assert len(boxes) == 1 and scores[0] == pytest.approx(1 / (1 + np.exp(-SURE)))
    x, y = centres[index] * 128 + (dx, dy)
    assert boxes[0, :4] == pytest.approx([x, y, side, side], abs=1e-3)
    assert boxes[0, 4:8] == pytest.approx([x - side / 5, y, x + side / 5, y], abs=1e-3)


def test_boxes_under_the_score_are_left_out() -> None:
    found = raw(a0=(0, 0, 20, 0.5), a800=(0, 0, 20, 2.0))
    _, scores = blazeface.decode(*found, blazeface.anchors(), 0.7)
    assert len(scores) == 1
    none, _ = blazeface.decode(*raw(), blazeface.anchors(), 0.01)
    assert none.shape == (0, 16)


def test_overlapping_boxes_become_their_mean_by_score_and_the_best_score_stays() -> None:
    found = raw(a0=(40, 40, 40, 3.0), a1=(44, 40, 40, 1.0))
    boxes, scores = blazeface.decode(*found, blazeface.anchors(), 0.5)
    sure, less = (1 / (1 + np.exp(-logit)) for logit in (3.0, 1.0))
    assert len(boxes) == 1
    assert boxes[0, 0] == pytest.approx(4 + 40 + 4 * less / (sure + less), abs=1e-3)
    assert scores[0] == pytest.approx(sure)


def test_two_people_stay_two_the_surer_first() -> None:
    found = raw(a0=(10, 10, 20, 2.0), a895=(-10, -10, 20, 3.0))
    boxes, scores = blazeface.decode(*found, blazeface.anchors(), 0.7)
    assert len(boxes) == 2 and scores[0] > scores[1] and boxes[0, 0] > boxes[1, 0]


def test_extreme_outputs_give_no_warning_and_no_nan() -> None:
    offsets, logits = raw(a5=(0, 0, 0, 1e30), a700=(0, 0, 10, -1e30))
    with np.errstate(all="raise"):
        boxes, scores = blazeface.decode(offsets, logits, blazeface.anchors(), 0.7)
    assert np.isfinite(boxes).all() and scores.tolist() == [1.0]
