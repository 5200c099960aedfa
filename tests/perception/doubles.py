"""A detector and a classifier without weights, that satisfy the real Protocols.

A frame of one colour stands for a picture: its red value is P(happy) in percent, and no red at all
is a picture without a face. A red of `BROKEN` makes the detector fail.
"""

from __future__ import annotations

import threading

import numpy as np

from perception.affect import Affect
from perception.faces import Face, Frame

BROKEN = 255


def picture(happy: float | None, height: int = 48, width: int = 64) -> Frame:
    """A frame of one colour; None shows no face."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = 0 if happy is None else max(1, round(100 * happy))
    return frame


def broken() -> Frame:
    """A frame that the detector fails on."""
    return np.full((48, 64, 3), BROKEN, np.uint8)


def face(x: float, y: float, side: float = 100.0, tilt: float = 0.0, score: float = 0.9) -> Face:
    """A square face with its middle at (x, y); `tilt` is how much lower the left eye is, px."""
    return Face(
        x=x - side / 2,
        y=y - side / 2,
        width=side,
        height=side,
        score=score,
        right_eye=(x - side / 5, y - side / 8 - tilt / 2),
        left_eye=(x + side / 5, y - side / 8 + tilt / 2),
    )


class ColourDetector:
    """Finds one face in the middle of a picture that has any red."""

    id = "colour"

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        """Held back until it is set, as a slow model would be."""
        self.entered = threading.Event()
        self.frames: list[int] = []
        """The red of every frame seen."""
        self.closed = False

    def detect(self, frame_rgb: Frame) -> list[Face]:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        red = int(frame_rgb[0, 0, 0])
        self.frames.append(red)
        if red == BROKEN:
            raise RuntimeError("the model broke")
        height, width = frame_rgb.shape[:2]
        return [face(width / 2, height / 2, min(height, width))] if red else []

    def close(self) -> None:
        self.closed = True


class ColourClassifier:
    """P(happy) is the red of the face."""

    id = "colour"
    labels = ("happy", "neutral")
    size = 16

    def __init__(self, gives_valence: bool = False) -> None:
        self.gives_valence = gives_valence

    def classify(self, face_rgb: Frame) -> Affect:
        assert face_rgb.shape == (self.size, self.size, 3)
        happy = round(float(face_rgb[..., 0].mean())) / 100
        valence = 2 * happy - 1 if self.gives_valence else None
        return Affect({"happy": happy, "neutral": 1 - happy}, valence)
