"""From a frame to what its face shows: detect, follow one face, align, classify. Live calls and
files share this, so that a file gives the labels that the call would have given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perception.affect import Affect, AffectClassifier
from perception.errors import PerceptionError
from perception.faces import Face, FaceDetector, Frame, align
from perception.settings import Settings
from perception.tracking import FaceTracker

CLOSER_SHARE = 0.75
"""Side of the second look, of the frame's shorter side: BlazeFace short range misses faces under
about 15 % of the longer side of what it is shown, and a wide-angle webcam makes such faces."""


def check_rule(settings: Settings, classifier: AffectClassifier) -> None:
    """Refuse the rule `valence` with a classifier that gives none.

    Raises:
        PerceptionError: they do not go together.
    """
    if settings.positive_rule == "valence" and not classifier.gives_valence:
        raise PerceptionError(
            f"positive_rule = 'valence' needs a classifier that gives valence; {classifier.id} "
            "does not (EmotiEffLib's multi-task models do)"
        )


class FaceReader:
    """Reads one person's face from the frames of one call, in order."""

    def __init__(
        self, detector: FaceDetector, classifier: AffectClassifier, settings: Settings
    ) -> None:
        """Start with nobody followed; the models may be shared with other calls.

        Raises:
            PerceptionError: the rule needs a valence that the classifier does not give.
        """
        check_rule(settings, classifier)
        self._detector = detector
        self._classifier = classifier
        self._min_face_px = settings.min_face_px
        self._tracker = FaceTracker()

    def read(self, frame_rgb: Frame, t_s: float) -> Affect | None:
        """What the followed face shows, None when it is not in the frame; about 3 ms on one core
        with the embedded models.

        Args:
            frame_rgb: RGB uint8 `[height, width, 3]`.
            t_s: its time on the session clock.

        Raises:
            PerceptionError: no RGB uint8 frame.
        """
        faces = [f for f in self._detect(frame_rgb) if f.width >= self._min_face_px]
        face = self._tracker.pick(faces, frame_rgb.shape[1], frame_rgb.shape[0], t_s)
        if face is None:
            return None
        return self._classifier.classify(align(frame_rgb, face, self._classifier.size))

    def _detect(self, frame_rgb: Frame) -> list[Face]:
        """Faces of the whole frame; where there are none, those of a closer look at its middle."""
        faces = self._detector.detect(frame_rgb)
        if faces or frame_rgb.ndim != 3:
            return faces
        height, width = frame_rgb.shape[:2]
        side = int(CLOSER_SHARE * min(height, width))
        left, top = (width - side) // 2, (height - side) // 2
        middle = np.ascontiguousarray(frame_rgb[top : top + side, left : left + side])
        return [_moved(face, left, top) for face in self._detector.detect(middle)]


def _moved(face: Face, right: float, down: float) -> Face:
    return replace(
        face,
        x=face.x + right,
        y=face.y + down,
        right_eye=(face.right_eye[0] + right, face.right_eye[1] + down),
        left_eye=(face.left_eye[0] + right, face.left_eye[1] + down),
    )


class Sampler:
    """Picks frames so that `frames_hz` a second are left of a faster stream, evenly in time."""

    def __init__(self, frames_hz: float) -> None:
        """The first frame offered is due."""
        self._period_s = 1.0 / frames_hz
        self._due_s = float("-inf")

    def take(self, t_s: float) -> bool:
        """Whether the frame at `t_s` is one of the picked; times do not go back."""
        # A tenth of a period early is on time: camera clocks jitter.
        if not t_s >= self._due_s - 0.1 * self._period_s:
            return False
        late = t_s - self._due_s > self._period_s  # the first frame, or the first after a pause
        self._due_s = (t_s if late else self._due_s) + self._period_s
        return True
