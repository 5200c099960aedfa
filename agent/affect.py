"""The listener's face in a call: loads the models once, runs one worker a call, speaks in records.

The only place where `agent` and `perception` meet while a call runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent import weights
from agent.config import Config
from agent.errors import ConfigError, WeightsError
from agent.records import AffectWindow

if TYPE_CHECKING:
    from perception.affect import AffectClassifier
    from perception.faces import FaceDetector
    from perception.settings import Settings
    from perception.windows import Window
    from perception.worker import AffectWorker


class ListenerModels:
    """The face detector and the affect classifier; all calls of a process share them."""

    def __init__(self, detector: FaceDetector, classifier: AffectClassifier) -> None:
        """Hold two loaded models; `load` is the usual way."""
        self.detector = detector
        self.classifier = classifier

    @classmethod
    def load(cls, config: Config) -> ListenerModels:
        """Fetch what is missing and load both models. Slow: not on the event loop.

        Raises:
            ConfigError: an unknown engine, or a rule that the classifier cannot serve.
            WeightsError: weights that are missing, wrong, or not what the engine reads.
        """
        from perception.affect import check_classifier, load_classifier
        from perception.errors import ModelError, PerceptionError
        from perception.faces import check_detector, load_detector
        from perception.reading import check_rule

        chosen = config.perception
        try:
            settings = settings_of(config)
            check_detector(chosen.detector)
            check_classifier(chosen.classifier)
            face_path = weights.ensure(chosen.detector_model, config.models)
            affect_path = weights.ensure(chosen.classifier_model, config.models)
            classifier = load_classifier(chosen.classifier, affect_path)
            check_rule(settings, classifier)
            detector = load_detector(chosen.detector, face_path, settings.detector_score)
        except ModelError as error:
            way_out = "run geli models verify, or mend [perception] and [models.paths]"
            raise WeightsError(str(error), way_out) from None
        except PerceptionError as error:
            raise ConfigError(f"[perception]: {error}") from None
        return cls(detector, classifier)

    @property
    def classifier_id(self) -> str:
        """Which classifier and weights read the face, as stored with every window."""
        return self.classifier.id

    def close(self) -> None:
        """Give the models back; calls must be over."""
        self.detector.close()


class Listener:
    """Watches the user's face during one call. Every method but `close` returns at once."""

    def __init__(self, models: ListenerModels, config: Config) -> None:
        """Nothing runs before `start`."""
        self._models = models
        self._settings = settings_of(config)
        self._worker: AffectWorker | None = None
        self._camera_on = True

    def start(self, on_window: Callable[[AffectWindow], None]) -> None:
        """Begin; `on_window` is called in the worker's thread, with every window in order."""
        from perception.worker import AffectWorker

        classifier_id = self._models.classifier_id
        self._worker = AffectWorker(
            self._models.detector,
            self._models.classifier,
            self._settings,
            lambda window: on_window(record_of(window, classifier_id)),
        )

    def see(self, rgb: NDArray[np.uint8], t_s: float) -> None:
        """A video frame, RGB `[height, width, 3]`, at its time on the session clock."""
        if self._worker is not None and self._camera_on:
            self._worker.offer(rgb, t_s)

    def advance(self, t_s: float) -> None:
        """Tell the session clock, so that windows end when no frames come."""
        if self._worker is not None:
            self._worker.advance(t_s)

    def set_camera(self, on: bool) -> None:
        """The camera was switched; frames still on their way from a camera that is off show
        nobody and are not looked at."""
        self._camera_on = on

    @property
    def behind(self) -> bool:
        """Whether frames or ticks are still to be worked on."""
        return self._worker is not None and self._worker.behind

    @property
    def read(self) -> int:
        """Frames that were analysed so far."""
        return 0 if self._worker is None else self._worker.read

    @property
    def dropped(self) -> int:
        """Frames that were due and not analysed: the models were too slow."""
        return 0 if self._worker is None else self._worker.dropped

    @property
    def failure(self) -> Exception | None:
        """The first failure of a model, if there was one."""
        return None if self._worker is None else self._worker.failure

    def close(self) -> None:
        """Hand out the last windows and stop; waits for the worker's thread. Idempotent."""
        if self._worker is not None:
            self._worker.close()


def settings_of(config: Config) -> Settings:
    """The part of `[perception]` that the package `perception` itself reads.

    Raises:
        PerceptionError: a value that it refuses.
    """
    from perception.settings import Settings

    names = [field.name for field in dataclasses.fields(Settings)]
    return Settings(**{name: getattr(config.perception, name) for name in names})


def record_of(window: Window, classifier_id: str) -> AffectWindow:
    """A window as the session log stores it."""
    return AffectWindow(
        index=window.index,
        start_s=window.start_s,
        end_s=window.end_s,
        face_found=window.face_found,
        coverage=window.coverage,
        probabilities=window.probabilities,
        valence=window.valence,
        positive=window.positive,
        classifier=classifier_id,
    )
