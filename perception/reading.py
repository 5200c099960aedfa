"""From a frame to a reading: detect, follow one face, align, classify. Live calls and files share
this, so that a file gives the labels that the call would have given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perception.affect import AffectClassifier, open_classifier
from perception.errors import PerceptionError
from perception.faces import FaceDetector, Frame, align, open_detector
from perception.settings import Settings
from perception.tracking import FaceTracker
from perception.windows import FrameReading

LOST_AFTER_S = 1.0
"""The followed face may be away this long before another takes its place."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The two models; calls can share one pair."""

    detector: FaceDetector
    classifier: AffectClassifier

    def close(self) -> None:
        """Give the detector's threads back."""
        self.detector.close()


def open_engines(settings: Settings, detector_path: Path, classifier_path: Path) -> Engines:
    """The detector and the classifier that `settings` name, on these weights.

    Raises:
        PerceptionError: unknown engine, unusable weights, or a rule the classifier cannot serve.
    """
    classifier = open_classifier(settings.classifier, classifier_path, id=settings.classifier_model)
    check_rule(settings, classifier)
    detector = open_detector(
        settings.detector,
        detector_path,
        min_score=settings.detector_score,
        min_face_px=settings.min_face_px,
    )
    return Engines(detector, classifier)


def check_rule(settings: Settings, classifier: AffectClassifier) -> None:
    """Refuse the rule `valence` with a classifier that gives none.

    Raises:
        PerceptionError: they do not go together.
    """
    if settings.positive_rule == "valence" and not classifier.has_valence:
        raise PerceptionError(
            f"positive_rule = 'valence' needs a classifier that gives valence; {classifier.id} "
            "does not (EmotiEffLib's multi-task *_va_mtl models do)"
        )


class Reader:
    """Reads one person's face from the frames of one call, in order."""

    def __init__(self, engines: Engines, settings: Settings) -> None:
        """Start with nobody followed."""
        self._engines = engines
        self._tracker = FaceTracker(lost_after=max(1, round(LOST_AFTER_S * settings.frames_hz)))

    def read(self, frame_rgb: Frame, t_s: float) -> FrameReading:
        """What the frame shows; about 3 ms on one core with the embedded models.

        Raises:
            PerceptionError: no RGB uint8 frame.
        """
        faces = self._engines.detector.detect(frame_rgb)
        face = self._tracker.update(faces, frame_rgb.shape[1], frame_rgb.shape[0])
        if face is None:
            return FrameReading(t_s, None)
        crop = align(frame_rgb, face, self._engines.classifier.size)
        return FrameReading(t_s, self._engines.classifier.classify(crop))


class Sampler:
    """Picks frames so that `frames_hz` a second are left of a faster stream, evenly in time."""

    def __init__(self, frames_hz: float) -> None:
        """The first frame offered is due."""
        self._period_s = 1.0 / frames_hz
        self._due_s = float("-inf")

    def is_due(self, t_s: float) -> bool:
        """Whether `take` would pick the frame at `t_s`."""
        # A tenth of a period early is on time: camera clocks jitter.
        return t_s >= self._due_s - 0.1 * self._period_s

    def take(self, t_s: float) -> bool:
        """Whether the frame at `t_s` is one of the picked; times do not go back."""
        if not self.is_due(t_s):
            return False
        self._due_s = max(self._due_s, t_s - self._period_s / 2) + self._period_s
        return True
