"""Voice activity: Silero VAD v6 (MIT), the ONNX file that faster-whisper ships.

Each 512-sample frame is judged with the 64 samples before it and the recurrent state of its
stream (model card: snakers4/silero-vad).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.config import Config
from agent.engines.protocols import VAD_FRAME_SAMPLES, Pcm

CONTEXT_SAMPLES = 64


class Silero:
    """One ONNX session, shared by all streams."""

    id = "silero-vad-v6"

    def __init__(self) -> None:
        import onnxruntime
        from faster_whisper.utils import get_assets_path

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            f"{get_assets_path()}/silero_vad_v6.onnx", options, providers=["CPUExecutionProvider"]
        )

    def open(self) -> SileroStream:
        """A stream with a state of its own."""
        return SileroStream(self._session)


class SileroStream:
    """The voice activity of one audio stream."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = np.zeros((1, CONTEXT_SAMPLES + VAD_FRAME_SAMPLES), np.float32)
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)

    def feed(self, frame: Pcm) -> float:
        """Speech probability of the next frame, shape [512].

        Raises:
            ValueError: a frame of another length.
        """
        if frame.shape != (VAD_FRAME_SAMPLES,):
            raise ValueError(f"a frame has {VAD_FRAME_SAMPLES} samples, not {frame.shape}")
        self._input[0, :CONTEXT_SAMPLES] = self._input[0, -CONTEXT_SAMPLES:]
        self._input[0, CONTEXT_SAMPLES:] = frame
        probability, self._h, self._c = self._session.run(
            None, {"input": self._input, "h": self._h, "c": self._c}
        )
        return float(np.ravel(probability)[0])


def open_silero(config: Config) -> Silero:
    """The detector of `voice_activity.engine = "silero"`."""
    return Silero()
