"""The two detectors on real pictures: the same faces, and one of them stays off the network."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent import weights
from agent.config import Models
from perception.clip import _rgb, _timed, open_video
from perception.errors import ModelError, PerceptionError
from perception.faces import BlazeFaceDetector, Frame, MediaPipeFaceDetector
from perception.tracking import overlap
from tests import media

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model() -> Path:
    return weights.ensure("blazeface-short-range", Models())


@pytest.fixture(scope="module")
def ours(model: Path) -> Iterator[BlazeFaceDetector]:
    detector = BlazeFaceDetector(model)
    yield detector
    detector.close()


def frames(clip: Path, every: int) -> list[Frame]:
    with open_video(clip) as (container, stream):
        timed = _timed(container.decode(stream), 25.0)
        return [_rgb(frame) for number, (_, frame) in enumerate(timed) if number % every == 0]


def test_it_finds_what_mediapipe_finds(
    model: Path, ours: BlazeFaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MediaPipe reports its use to Google; nobody listens on this proxy.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    theirs = MediaPipeFaceDetector(model)
    try:
        for clip in (media.face_clip(), media.single_face_clip()):
            for frame in frames(clip, 24):
                (mine,), (other,) = ours.detect(frame), theirs.detect(frame)
                assert overlap(mine, other) > 0.85
                assert abs(mine.score - other.score) < 0.06
                for eye in ("right_eye", "left_eye"):
                    away = np.subtract(getattr(mine, eye), getattr(other, eye))
                    assert np.hypot(*away) < 0.06 * other.width
    finally:
        theirs.close()


def test_a_picture_without_a_face_has_none(ours: BlazeFaceDetector) -> None:
    assert all(ours.detect(frame) == [] for frame in frames(media.no_face_clip(), 10))


@pytest.mark.parametrize(("left", "top"), [(0, 0), (300, 0), (0, 200)])
def test_the_face_moves_with_the_picture(ours: BlazeFaceDetector, left: int, top: int) -> None:
    """Padding to the square must not shift or squeeze the box."""
    frame = frames(media.single_face_clip(), 1000)[0]
    (before,) = ours.detect(frame)
    height, width = frame.shape[:2]
    wider = np.zeros((height + top, width + left, 3), np.uint8)
    wider[top:, left:] = frame
    (after,) = ours.detect(wider)
    assert after.centre == pytest.approx(
        (before.centre[0] + left, before.centre[1] + top), abs=0.06 * before.width
    )
    assert after.width == pytest.approx(before.width, rel=0.1)


def test_a_small_picture_is_enlarged(ours: BlazeFaceDetector) -> None:
    frame = frames(media.single_face_clip(), 1000)[0]
    (whole,) = ours.detect(frame)
    x, y, side = round(whole.x), round(whole.y), round(whole.width)
    part = frame[y - 40 : y + side + 40 : 3, x - 40 : x + side + 40 : 3]
    assert max(part.shape[:2]) < 128
    (small,) = ours.detect(np.ascontiguousarray(part))
    assert 3 * small.width == pytest.approx(whole.width, rel=0.2)


def test_bad_weights_and_a_closed_detector_are_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match="not there"):
        BlazeFaceDetector(tmp_path / "none.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a face detector's model"):
        BlazeFaceDetector(tmp_path / "bad.tflite")
    other = weights.ensure("mini-xception-fer", Models())
    with pytest.raises(ModelError, match="not BlazeFace"):
        BlazeFaceDetector(other)
    detector = BlazeFaceDetector(model)
    detector.close()
    detector.close()
    with pytest.raises(PerceptionError, match="closed"):
        detector.detect(np.zeros((48, 64, 3), np.uint8))


_USE = """
import sys, time
from pathlib import Path
import numpy as np
from perception.faces import BlazeFaceDetector
detector = BlazeFaceDetector(Path(sys.argv[1]))
detector.detect(np.zeros((480, 640, 3), np.uint8))
detector.close()
assert "mediapipe" not in sys.modules
"""


def test_it_asks_nobody_on_the_network(model: Path) -> None:
    """MediaPipe's own detector asks this proxy for play.googleapis.com when it is made."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    asked.append(peer.recv(200))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        names = ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY")
        done = subprocess.run(
            [sys.executable, "-c", _USE, str(model)],
            env={**os.environ, **dict.fromkeys(names, proxy), "no_proxy": "", "NO_PROXY": ""},
            cwd=Path(__file__).parents[2],
            check=False,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert asked == []
