"""The aligned crop: where points of the face come to lie."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perception.errors import PerceptionError
from perception.faces import CROP_SCALE, Face, _square, align, alignment, check_frame
from tests.perception.doubles import face

pytestmark = pytest.mark.unit


def mapped(face_: Face, size: int, point: tuple[float, float]) -> np.ndarray:
    return alignment(face_, size) @ np.array([*point, 1.0])


@given(
    st.floats(-100, 900),
    st.floats(-100, 700),
    st.floats(50, 400),
    st.floats(-0.9, 0.9),
    st.sampled_from([64, 224]),
)
def test_the_box_is_centred_the_eyes_level_and_the_scale_true(
    x: float, y: float, side: float, slope: float, size: int
) -> None:
    tilted = face(x, y, side, tilt=slope * side)
    assert mapped(tilted, size, tilted.centre) == pytest.approx([size / 2, size / 2], abs=1e-6)
    right, left = mapped(tilted, size, tilted.right_eye), mapped(tilted, size, tilted.left_eye)
    assert right[1] == pytest.approx(left[1], abs=1e-6)
    assert right[0] < left[0]
    apart = math.dist(tilted.right_eye, tilted.left_eye)
    assert left[0] - right[0] == pytest.approx(apart * size / (CROP_SCALE * side))


@given(st.floats(50, 400), st.floats(0.5, 2.0))
def test_the_longer_side_of_the_box_decides(width: float, ratio: float) -> None:
    assume(width * ratio > 20)
    box = Face(0, 0, width, width * ratio, 0.9, (width * 0.3, 10), (width * 0.7, 10))
    matrix = alignment(box, 64)
    scale = math.hypot(matrix[0, 0], matrix[0, 1])
    assert scale == pytest.approx(64 / (CROP_SCALE * max(width, width * ratio)))


def test_a_profile_is_not_turned() -> None:
    profile = Face(0, 0, 100, 100, 0.9, right_eye=(50, 30), left_eye=(52, 40))
    assert alignment(profile, 64)[0, 1] == 0.0


@pytest.mark.parametrize("side", [40, 120, 600])
def test_a_tilted_picture_comes_out_upright(side: int) -> None:
    upright = face(400, 400, side)
    frame = np.full((800, 800, 3), 90, np.uint8)
    for eye, colour in ((upright.right_eye, (255, 0, 0)), (upright.left_eye, (0, 255, 0))):
        cv2.circle(frame, (round(eye[0]), round(eye[1])), side // 8, colour, -1)
    turn = cv2.getRotationMatrix2D((400, 400), 25, 1.0)
    turned = cv2.warpAffine(frame, turn, (800, 800), borderValue=(90, 90, 90))
    right = turn @ np.array([*upright.right_eye, 1.0])
    left = turn @ np.array([*upright.left_eye, 1.0])
    tilted = Face(upright.x, upright.y, side, side, 0.9, (right[0], right[1]), (left[0], left[1]))
    want = align(frame, upright, 64).astype(int)
    have = align(turned, tilted, 64).astype(int)
    assert have.shape == (64, 64, 3)
    off = np.abs(want - have).mean()  # turning blurs the dots' edges
    assert off < 0.25 * np.abs(want - align(turned, upright, 64).astype(int)).mean()


def test_a_face_half_out_of_the_frame_repeats_the_edge() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[:, 0] = (10, 20, 30)
    crop = align(frame, face(0, 50, 60), 64)
    assert crop[:, :30].reshape(-1, 3).tolist() == [[10, 20, 30]] * (64 * 30)


def test_a_face_without_extent_and_a_frame_of_another_shape_are_refused() -> None:
    with pytest.raises(PerceptionError, match="extent"):
        align(np.zeros((9, 9, 3), np.uint8), Face(0, 0, 0, 0, 0.9, (0, 0), (0, 0)), 64)
    for bad in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)):
        with pytest.raises(PerceptionError, match="RGB uint8"):
            check_frame(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (100, 101), (1080, 1920), (50, 50)])
def test_the_frame_lies_in_the_middle_of_its_square(shape: tuple[int, int]) -> None:
    frame = np.full((*shape, 3), 200, np.uint8)
    square, scale, left, top = _square(frame, 640)
    side = square.shape[0]
    assert square.shape == (side, side, 3) and side <= 640
    rows, columns = np.nonzero(square[..., 0] > 100)
    assert (columns.min(), rows.min()) == (left, top)
    assert abs((columns.min() + columns.max()) - (side - 1)) <= 1
    assert abs((rows.min() + rows.max()) - (side - 1)) <= 1
    assert (rows.max() - top + 1) * scale == pytest.approx(shape[0], abs=scale)
