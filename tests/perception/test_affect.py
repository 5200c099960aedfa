"""The classifiers' contracts, with tiny ONNX models of the published signature made here.

No package ships EmotiEffLib's weights; a model whose logits are a known linear function of its
input's channel means proves the preprocessing, the order of classes and the valence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception.affect import (
    EfficientNetAffect,
    check_classifier,
    load_classifier,
    positive_probability,
)
from perception.errors import ModelError, PerceptionError
from perception.faces import check_detector, load_detector
from perception.reading import check_rule
from perception.settings import Settings

pytestmark = pytest.mark.unit

LABELS = ["anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def model_file(
    folder: Path,
    outputs: int,
    *,
    weights: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    shape: tuple[object, ...] = ("batch", 3, 224, 224),
) -> Path:
    """An ONNX file: mean over the picture of each channel, then a linear layer."""
    weights = np.zeros((outputs, 3)) if weights is None else weights
    bias = np.zeros(outputs) if bias is None else bias
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["output"], transB=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], outputs])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(bias.astype(np.float32), "b"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = folder / f"enet_{outputs}.onnx"
    onnx.save(made, path)
    return path


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def test_the_picture_is_normalised_as_imagenet_wants(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(8, 3)), rng.normal(size=8)
    model = EfficientNetAffect(model_file(tmp_path, 8, weights=weights, bias=bias))
    picture = rng.integers(0, 256, (224, 224, 3)).astype(np.uint8)
    means = [
        (picture[..., c] / 255.0).mean() / DEVIATION[c] - MEAN[c] / DEVIATION[c] for c in range(3)
    ]
    expected = softmax(weights @ np.array(means) + bias)
    affect = model.classify(picture)
    assert list(affect.probabilities) == LABELS
    assert list(affect.probabilities.values()) == pytest.approx(expected, abs=1e-5)
    assert affect.valence is None and not model.gives_valence
    assert model.id == "efficientnet:enet_8" and model.size == 224


@pytest.mark.parametrize("number", range(8))
def test_each_output_has_its_name(tmp_path: Path, number: int) -> None:
    model = EfficientNetAffect(model_file(tmp_path, 8, bias=np.eye(8)[number] * 9))
    affect = model.classify(np.zeros((224, 224, 3), np.uint8))
    assert max(affect.probabilities, key=affect.probabilities.__getitem__) == LABELS[number]
    assert (affect.positive > 0.9) is (LABELS[number] == "happiness")


@pytest.mark.parametrize(("valence", "expected"), [(0.4, 0.4), (-0.7, -0.7), (1.2, 1.0)])
def test_the_last_two_of_ten_are_valence_and_arousal(
    tmp_path: Path, valence: float, expected: float
) -> None:
    bias = np.array([*np.zeros(8), valence, 0.9])
    model = load_classifier("efficientnet", model_file(tmp_path, 10, bias=bias))
    affect = model.classify(np.zeros((224, 224, 3), np.uint8))
    assert model.gives_valence
    assert affect.valence == pytest.approx(expected)
    assert sum(affect.probabilities.values()) == pytest.approx(1.0)
    check_rule(Settings(positive_rule="valence"), model)


def test_the_valence_rule_needs_valence(tmp_path: Path) -> None:
    model = load_classifier("efficientnet", model_file(tmp_path, 8))
    with pytest.raises(PerceptionError, match=r"valence.*enet_8"):
        check_rule(Settings(positive_rule="valence"), model)


@pytest.mark.parametrize("outputs", [1, 7, 9, 11])
def test_another_number_of_outputs_is_refused(tmp_path: Path, outputs: int) -> None:
    with pytest.raises(ModelError, match=rf"enet_{outputs}.onnx.*\[{outputs}\]"):
        EfficientNetAffect(model_file(tmp_path, outputs))


def test_another_size_is_read_from_the_model(tmp_path: Path) -> None:
    model = EfficientNetAffect(model_file(tmp_path, 8, shape=(1, 3, 260, 260)))
    assert model.size == 260
    model.classify(np.zeros((260, 260, 3), np.uint8))
    with pytest.raises(PerceptionError, match=r"\[260, 260, 3\]"):
        model.classify(np.zeros((224, 224, 3), np.uint8))
    open_ = EfficientNetAffect(model_file(tmp_path, 8, shape=("n", 3, "h", "w")))
    assert open_.size == 224


def test_another_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a face classifier"):
        EfficientNetAffect(model_file(tmp_path, 8, shape=(1, 3, 224, 112)))


@pytest.mark.parametrize("name", ["efficientnet", "mini-xception"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, name: str) -> None:
    wrong = tmp_path / "weights.bin"
    with pytest.raises(ModelError, match=r"weights\.bin.*not there"):
        load_classifier(name, wrong)
    wrong.write_bytes(b"nothing like a model")
    with pytest.raises(ModelError, match=r"weights\.bin") as caught:
        load_classifier(name, wrong)
    assert "\n" not in str(caught.value)


def test_a_detector_of_no_model_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "weights.tflite"
    with pytest.raises(ModelError, match=r"weights\.tflite.*not there"):
        load_detector("mediapipe", wrong)
    wrong.write_bytes(b"nothing like a model")
    with pytest.raises(ModelError, match=r"weights\.tflite") as caught:
        load_detector("mediapipe", wrong)
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(PerceptionError, match="mini-xception, efficientnet"):
        check_classifier("mood-ring")
    with pytest.raises(PerceptionError, match="mediapipe"):
        check_detector("eye")


def test_positive_is_happiness_under_any_name() -> None:
    assert positive_probability({"happy": 0.3, "surprise": 0.7}) == 0.3
    assert positive_probability({"Happiness": 0.6, "Anger": 0.4}) == 0.6
