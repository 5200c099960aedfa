"""Semantic end of turn: Smart Turn v3.2 (BSD-2; model card pipecat-ai/smart-turn-v3).

Input: the last 8 s of the turn at 16 kHz, padded with silence in front, scaled to zero mean and
unit variance, as Whisper log-mel features [80, 800]; output: the probability that it is over.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent import weights
from agent.config import Config
from agent.engines.protocols import SAMPLE_RATE_HZ, Pcm

HEARD_S = 8


class SmartTurn:
    """Smart Turn on the CPU.

    Args:
        model: the ONNX file.
        name: id as logged.
    """

    def __init__(self, model: Path, name: str) -> None:
        import onnxruntime
        from faster_whisper.feature_extractor import FeatureExtractor

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self._features = FeatureExtractor(chunk_length=HEARD_S)
        self.id = name

    def features(self, pcm: Pcm) -> NDArray[np.float32]:
        """Log-mel features [80, 800] of the last 8 s of `pcm` [samples]."""
        whole = HEARD_S * SAMPLE_RATE_HZ
        heard = pcm[-whole:]
        padded = np.zeros(whole, np.float32)
        padded[whole - len(heard) :] = heard
        scaled = (padded - padded.mean()) / np.sqrt(padded.var() + 1e-7)
        mel: NDArray[np.float32] = self._features(scaled, padding=0)[:, : HEARD_S * 100]
        return mel.astype(np.float32)

    def complete(self, pcm: Pcm) -> float:
        """Probability that the turn is over."""
        (out,) = self._session.run(None, {"input_features": self.features(pcm)[np.newaxis]})
        return float(np.ravel(out)[0])


def open_smart_turn(config: Config) -> SmartTurn:
    """The model of `end_of_turn.engine = "smart-turn"`."""
    name = config.end_of_turn.model
    return SmartTurn(weights.ensure(name, config.models), name)
