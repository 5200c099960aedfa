"""The real models on real pictures."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent import cli, config
from agent.affect import ListenerModels, settings_of
from agent.config import Config
from agent.errors import ConfigError
from perception.clip import perceive_clip
from perception.faces import Face, align
from perception.reading import FaceReader
from perception.windows import Window
from tests import media

pytestmark = pytest.mark.engine

Pictures = NDArray[np.uint8]


@pytest.fixture(scope="module", params=["blazeface", "mediapipe"])
def chosen(request: pytest.FixtureRequest) -> Config:
    return config.load("cpu", [f"perception.detector={request.param}"])


@pytest.fixture(scope="module")
def models(chosen: Config) -> Iterator[ListenerModels]:
    loaded = ListenerModels.load(chosen)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def astronaut() -> Pictures:
    return np.asarray(cv2.imread(str(media.astronaut()))[..., ::-1], np.uint8)


def check_turning(windows: list[Window]) -> None:
    """`media.face_clip` turns from sad to happy about 10 s in; 9 to 11 s is the border."""
    assert len(windows) >= 18
    assert all(w.face_found and w.coverage == 1.0 for w in windows)
    assert {w.positive for w in windows if w.end_s <= 10.0} == {False}
    assert {w.positive for w in windows if w.start_s >= 10.0} == {True}


def test_a_face_that_turns_from_sad_to_happy(models: ListenerModels, chosen: Config) -> None:
    result = perceive_clip(
        media.face_clip(), models.detector, models.classifier, settings_of(chosen)
    )
    check_turning(result.windows)
    assert result.frames_with_face == result.frames_analysed == 99
    assert result.duration_s == pytest.approx(19.7, abs=0.1)


@pytest.mark.parametrize("rule", ["majority", "argmax"])
def test_other_rules_agree_on_a_clear_case(models: ListenerModels, rule: str) -> None:
    settings = settings_of(config.load("cpu", [f"perception.positive_rule={rule}"]))
    check_turning(
        perceive_clip(media.face_clip(), models.detector, models.classifier, settings).windows
    )


def test_a_clip_without_a_face_is_unknown(models: ListenerModels, chosen: Config) -> None:
    result = perceive_clip(
        media.no_face_clip(), models.detector, models.classifier, settings_of(chosen)
    )
    assert result.frames_with_face == 0
    assert result.windows
    for window in result.windows:
        assert (window.face_found, window.coverage, window.positive) == (False, 0.0, None)
        assert window.probabilities is None


def test_one_face_in_a_short_clip(models: ListenerModels, chosen: Config) -> None:
    result = perceive_clip(
        media.single_face_clip(), models.detector, models.classifier, settings_of(chosen)
    )
    assert result.frames_with_face == result.frames_analysed > 0
    assert all(w.face_found for w in result.windows)


def test_a_smiling_still(models: ListenerModels, astronaut: Pictures) -> None:
    (face,) = models.detector.detect(astronaut)
    assert face.score > 0.8
    # Left and right are the person's own: her left eye is at the picture's right.
    assert face.x < face.right_eye[0] < face.left_eye[0] < face.x + face.width
    affect = models.classifier.classify(align(astronaut, face, models.classifier.size))
    assert list(affect.probabilities) == list(models.classifier.labels)
    assert sum(affect.probabilities.values()) == pytest.approx(1.0)
    assert affect.positive > 0.7


@pytest.mark.parametrize("angle", [-20, 20])
def test_a_tilted_head_is_read_as_well(
    models: ListenerModels, astronaut: Pictures, angle: float
) -> None:
    turn = cv2.getRotationMatrix2D((256, 256), angle, 1.0)
    tilted = np.asarray(cv2.warpAffine(astronaut, turn, (512, 512)), np.uint8)
    (face,) = models.detector.detect(tilted)
    assert models.classifier.classify(align(tilted, face, 64)).positive > 0.7


@pytest.mark.parametrize("shape", [(720, 1280), (1280, 720), (1080, 1920), (513, 700)])
def test_a_face_is_found_at_its_place_in_any_frame(
    models: ListenerModels, astronaut: Pictures, shape: tuple[int, int]
) -> None:
    side = min(shape)
    close = np.asarray(cv2.resize(astronaut[:256, 96:352], (side, side)), np.uint8)
    (at_home,) = models.detector.detect(close)
    frame = np.full((*shape, 3), 60, np.uint8)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 3
    frame[top : top + side, left : left + side] = close
    (face,) = models.detector.detect(frame)
    allowed = 0.12 * at_home.width
    assert face.centre == pytest.approx(
        (at_home.centre[0] + left, at_home.centre[1] + top), abs=allowed
    )
    for have, want in ((face.left_eye, at_home.left_eye), (face.right_eye, at_home.right_eye)):
        assert have == pytest.approx((want[0] + left, want[1] + top), abs=allowed)


def test_noise_and_darkness_are_no_faces(models: ListenerModels) -> None:
    rng = np.random.default_rng(0)
    for frame in (
        np.zeros((480, 640, 3), np.uint8),
        np.full((480, 640, 3), 255, np.uint8),
        rng.integers(0, 256, (480, 640, 3)).astype(np.uint8),
    ):
        assert models.detector.detect(frame) == []


def test_calls_share_the_models_from_their_own_threads(
    models: ListenerModels, astronaut: Pictures
) -> None:
    (face,) = models.detector.detect(astronaut)
    crop = align(astronaut, face, 64)
    expected = models.classifier.classify(crop)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(20):
            found: list[Face] = models.detector.detect(astronaut)
            if found != [face] or models.classifier.classify(crop) != expected:
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_valence_rule_is_refused_with_a_classifier_that_gives_none() -> None:
    with pytest.raises(ConfigError, match=r"valence.*mini-xception"):
        ListenerModels.load(config.load("cpu", ["perception.positive_rule=valence"]))


def perceive(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """`geli perceive` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["geli", "perceive", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out = capfd.readouterr()
    return int(left.value.code or 0), out.out, out.err


def test_geli_perceive_prints_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = media.face_clip()
    code, out, err = perceive(monkeypatch, capfd, clip, "--json")
    record = json.loads(out)
    assert code == 0 and err.strip() == ""
    assert set(record) == {
        "file", "duration_s", "frames_analysed", "frames_with_face", "classifier", "windows",
    }  # fmt: skip
    assert record["file"] == str(clip)
    assert record["classifier"].startswith("mini-xception:")
    assert {w["classifier"] for w in record["windows"]} == {record["classifier"]}
    assert {w["positive"] for w in record["windows"] if w["end_s"] <= 10} == {False}
    assert {w["positive"] for w in record["windows"] if w["start_s"] >= 10} == {True}


def test_geli_perceive_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = perceive(monkeypatch, capfd, media.no_face_clip())
    lines = out.splitlines()
    assert code == 0
    assert "0 with a face" in lines[0]
    assert lines[-1].startswith("strip") and lines[-1].split()[1] == "?" * (len(lines) - 3)


def test_bad_inputs_are_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clip, sound = media.no_face_clip(), media.speech("hello_world")[0]
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for arguments, problem in (
        ([tmp_path / "nope.mp4"], "no such file"),
        ([tmp_path], "is a folder"),
        ([sound], "has no video stream"),
        ([text], "not a readable video"),
        ([clip, "--set", "perception.classifier=mood"], "one of mini-xception, efficientnet"),
        ([clip, "--set", "perception.detector=eye"], "no face detector 'eye'; one of"),
        ([clip, "--set", "perception.positive_rule=valence"], "gives valence"),
        ([clip, "--set", "perception.positive_rule=mood"], "positive_rule"),
        ([clip, "--set", "perception.classifier=efficientnet"], "not an ONNX model"),
        ([clip, "--set", "perception.classifier_model=blazeface-short-range"], "XCEPTION"),
        (
            [clip, "--set", "perception.detector_model=mini-xception-fer"],
            "emotion_model_quantized.tflite: not ",
        ),
    ):
        code, out, err = perceive(monkeypatch, capfd, *arguments)
        assert code == 2 and out == "", arguments
        assert problem in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize("detector", ["blazeface", "mediapipe"])
def test_loading_and_closing_write_nothing_on_stderr(detector: str) -> None:
    code = (
        "from agent import config\nfrom agent.affect import ListenerModels\n"
        "from perception.quiet import chatter_dropped\nimport numpy as np\n"
        f"models = ListenerModels.load(config.load('cpu', ['perception.detector={detector}']))\n"
        # MediaPipe warns once where a picture's memory happens not to be aligned to its liking.
        "with chatter_dropped():\n"
        "    models.detector.detect(np.zeros((480, 640, 3), np.uint8))\n"
        "models.classifier.classify(np.zeros((64, 64, 3), np.uint8))\n"
        "models.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_two_people_the_followed_one_stays(models: ListenerModels, astronaut: Pictures) -> None:
    """The clip's person in the middle, a smiling bystander at the edge: the person is read."""
    from perception.reading import FaceReader

    reader = FaceReader(models.detector, models.classifier, settings_of(config.load("cpu")))
    bystander = cv2.resize(astronaut[:256, 96:352], (340, 340))
    read = []
    with av.open(str(media.face_clip())) as container:
        for n, frame in enumerate(container.decode(video=0)):
            if n % 4 == 0 and n < 80:
                person = frame.to_ndarray(format="rgb24", width=480, height=270)
                scene = np.full((480, 800, 3), 80, np.uint8)
                scene[40:310, 60:540] = person
                scene[140:480, 460:800] = bystander
                assert len(models.detector.detect(scene)) == 2
                read.append(reader.read(scene, n / 20))
    assert all(affect is not None and affect.positive < 0.5 for affect in read)


def test_a_small_face_in_the_middle_is_found_at_the_second_look(
    models: ListenerModels, chosen: Config, astronaut: Pictures
) -> None:
    """A wide-angle webcam at arm's length: the face is about a tenth of the frame's width."""
    wide = np.full((480, 640, 3), 90, np.uint8)
    person = cv2.resize(astronaut, (320, 320), interpolation=cv2.INTER_AREA)
    wide[100:420, 160:480] = person
    assert not models.detector.detect(wide), "the whole frame is too coarse for it"
    read = FaceReader(models.detector, models.classifier, settings_of(chosen)).read(wide, 0.0)
    assert read is not None and read.probabilities["happy"] > 0.7
