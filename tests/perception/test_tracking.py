"""Whose face it is, when there are several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.faces import Face
from perception.tracking import FaceTracker, choose, overlap
from tests.perception.doubles import face

pytestmark = pytest.mark.unit

W, H = 640, 480
USER = face(320, 240, 120)
BYSTANDER = face(560, 200, 110)


def test_the_largest_central_face_is_chosen() -> None:
    assert choose([BYSTANDER, USER], W, H) is USER
    assert choose([face(320, 240, 60), face(300, 250, 120)], W, H) == face(300, 250, 120)
    # A face in the corner has to be far larger than one in the middle.
    assert choose([face(600, 60, 130), USER], W, H) is USER
    assert choose([face(600, 60, 300), USER], W, H) == face(600, 60, 300)
    assert choose([], W, H) is None


def test_a_bystander_who_comes_nearer_does_not_take_over() -> None:
    tracker = FaceTracker()
    assert tracker.pick([USER], W, H, 0.0) is USER
    near = face(120, 240, 260)
    assert choose([USER, near], W, H) is near
    assert tracker.pick([near, USER], W, H, 0.2) is USER


def test_a_bystander_is_ignored_until_the_person_has_been_gone_for_two_seconds() -> None:
    tracker = FaceTracker()
    tracker.pick([USER, BYSTANDER], W, H, 10.0)
    times = [10.0 + n / 5 for n in range(1, 13)]
    picks = [tracker.pick([BYSTANDER], W, H, t) for t in times]
    assert [pick is None for pick in picks] == [t <= 12.0 for t in times]
    assert picks[-1] is BYSTANDER
    # And now that one is followed.
    assert tracker.pick([USER, BYSTANDER], W, H, 12.6) is BYSTANDER


def test_the_person_who_comes_back_in_time_is_taken_up_again() -> None:
    tracker = FaceTracker()
    tracker.pick([USER], W, H, 0.0)
    for n in range(1, 10):
        assert tracker.pick([BYSTANDER], W, H, n / 5) is None
    moved = face(360, 260, 130)
    assert tracker.pick([BYSTANDER, moved], W, H, 2.0) is moved


def test_after_a_stretch_without_frames_the_choice_is_anew() -> None:
    for gap_s, expected in ((2.0, None), (2.1, BYSTANDER)):
        tracker = FaceTracker()
        tracker.pick([USER], W, H, 0.0)
        assert tracker.pick([BYSTANDER], W, H, gap_s) is expected
    tracker = FaceTracker()
    tracker.pick([USER], W, H, 0.0)
    tracker.reset()
    assert tracker.pick([BYSTANDER], W, H, 0.2) is BYSTANDER


def test_a_person_who_walks_across_is_followed() -> None:
    tracker = FaceTracker()
    standing = face(320, 400, 90)
    for n, x in enumerate(range(100, 560, 60)):
        walking = face(x, 200, 120)
        faces = [standing, walking] if n else [walking]
        assert tracker.pick(faces, W, H, n / 5) is walking


FACES = st.builds(face, st.floats(-50, 700), st.floats(-50, 530), st.floats(20, 400))


@given(st.lists(st.tuples(st.lists(FACES, max_size=4), st.floats(0, 3)), max_size=20))
def test_what_is_picked_is_one_of_the_faces(frames: list[tuple[list[Face], float]]) -> None:
    tracker, t_s = FaceTracker(), 0.0
    for faces, step_s in frames:
        t_s += step_s
        found = tracker.pick(faces, W, H, t_s)
        assert found is None or found in faces
        if step_s > 2.0:
            assert (found is None) == (not faces)


@given(FACES, FACES)
def test_overlap_is_a_symmetric_share(a: Face, b: Face) -> None:
    assert 0.0 <= overlap(a, b) <= 1.0 + 1e-9
    assert overlap(a, b) == pytest.approx(overlap(b, a))
    assert overlap(a, a) == pytest.approx(1.0)
