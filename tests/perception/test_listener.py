"""Where a call and perception meet: the listener, its models' errors, and what is not loaded."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import config
from agent.affect import Listener, ListenerModels, record_of, settings_of
from agent.errors import ConfigError, WeightsError
from agent.records import AffectWindow
from perception.settings import Settings
from perception.windows import Window
from tests.perception.doubles import ColourClassifier, ColourDetector, broken, picture

pytestmark = pytest.mark.unit

HEAVY = ("mediapipe", "cv2", "ai_edge_litert", "onnxruntime", "av", "torch")
SMALL = ["perception.min_face_px=8"]


def settle(listener: Listener) -> None:
    deadline = time.monotonic() + 30
    while listener.behind:
        assert time.monotonic() < deadline, "still behind after 30 s"
        time.sleep(0.001)


def watch(listener: Listener, first: int, last: int, happy: float | None) -> None:
    """Frames and audio time as a call tells them, five a second."""
    for n in range(first, last):
        listener.see(picture(happy), n / 5)
        listener.advance(n / 5)
        settle(listener)


def test_importing_the_listener_loads_nothing_heavy() -> None:
    code = f"import agent.affect, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_windows_of_a_call_are_records() -> None:
    got: list[AffectWindow] = []
    detector = ColourDetector()
    models = ListenerModels(detector, ColourClassifier())
    listener = Listener(models, config.load("cpu", SMALL))
    listener.start(got.append)
    watch(listener, 0, 15, 0.9)
    assert [w.index for w in got] == [0]
    listener.close()
    listener.close()
    assert [(w.index, w.positive, w.classifier) for w in got] == [
        (0, True, "colour"), (1, True, "colour"),
    ]  # fmt: skip
    assert got[0].probabilities == pytest.approx({"happy": 0.9, "neutral": 0.1})
    assert listener.failure is None and not listener.behind
    assert not detector.closed
    models.close()
    assert detector.closed


def test_a_camera_that_is_off_shows_nobody() -> None:
    got: list[AffectWindow] = []
    listener = Listener(
        ListenerModels(ColourDetector(), ColourClassifier()), config.load("cpu", SMALL)
    )
    listener.start(got.append)
    watch(listener, 0, 10, 0.9)
    listener.set_camera(False)
    watch(listener, 10, 30, 0.9)
    listener.set_camera(True)
    watch(listener, 30, 41, 0.9)
    listener.close()
    labels = [w.positive for w in got]
    assert labels[0] is True and labels[2:5] == [None] * 3 and labels[6] is True


def test_a_listener_that_was_never_started() -> None:
    listener = Listener(ListenerModels(ColourDetector(), ColourClassifier()), config.load("cpu"))
    listener.see(picture(0.5), 0.0)
    listener.advance(5.0)
    assert not listener.behind and listener.failure is None
    listener.close()


def test_a_failure_is_kept_for_who_asks() -> None:
    listener = Listener(ListenerModels(ColourDetector(), ColourClassifier()), config.load("cpu"))
    listener.start(lambda window: None)
    listener.see(broken(), 0.0)
    settle(listener)
    assert isinstance(listener.failure, RuntimeError)
    listener.close()


def test_a_record_has_every_field_of_a_window() -> None:
    unknown = Window(3, 3.0, 5.0, False, 0.2, None, None, None)
    seen = Window(4, 4.0, 6.0, True, 1.0, {"happy": 0.9, "sad": 0.1}, 0.5, True)
    for window in (unknown, seen):
        record = record_of(window, "colour").model_dump()
        assert record.pop("classifier") == "colour"
        assert record == {name: getattr(window, name) for name in Window.__slots__}


def test_the_settings_are_those_of_the_config() -> None:
    chosen = ["perception.hop_s=0.5", "perception.positive_rule=argmax", "perception.frames_hz=9"]
    settings = settings_of(config.load("cpu", chosen))
    assert (settings.hop_s, settings.positive_rule, settings.frames_hz) == (0.5, "argmax", 9.0)
    assert settings_of(config.Config()) == Settings()


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["perception.detector=eye"], "no face detector 'eye'; one of .*mediapipe"),
        (["perception.classifier=mood"], "no affect classifier 'mood'; one of mini-xception"),
    ],
)
def test_unknown_engines_are_refused_before_anything_is_fetched(
    tmp_path: Path, overrides: list[str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        ListenerModels.load(config.load("cpu", [*overrides, f'models.cache="{tmp_path}"']))
    assert list(tmp_path.iterdir()) == []


def test_weights_of_ones_own_that_are_no_model(tmp_path: Path) -> None:
    wrong = tmp_path / "mine.onnx"
    wrong.write_bytes(b"no model")
    face = tmp_path / "face.tflite"
    face.write_bytes(b"no model")
    chosen = config.load(
        "cpu",
        [
            "perception.classifier=efficientnet",
            "perception.classifier_model=mine",
            "perception.detector_model=face",
            f'models.paths.mine="{wrong}"',
            f'models.paths.face="{face}"',
        ],
    )
    with pytest.raises(WeightsError, match=r"mine\.onnx") as caught:
        ListenerModels.load(chosen)
    assert "\n" not in str(caught.value)
