"""Faces in a frame: where they are, and the upright crop that an affect classifier reads.

Frames are RGB uint8 `[height, width, 3]`; coordinates are pixels of that frame, x to the right.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perception import blazeface
from perception.errors import ModelError, PerceptionError
from perception.quiet import chatter_dropped

Frame = NDArray[np.uint8]
"""RGB uint8 `[height, width, 3]`."""

CROP_SCALE = 1.15
"""Side of the aligned crop over the side of the detector's box."""

DETECTOR_SIDE_PX = 640
"""Larger frames are shrunk first: the detector looks at 128×128 anyway."""


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face. Left and right are the person's own, as the detector names them."""

    x: float
    """Left edge of the box; may lie outside of the frame."""
    y: float
    width: float
    height: float
    score: float
    right_eye: tuple[float, float]
    left_eye: tuple[float, float]

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return self.width * self.height


class FaceDetector(Protocol):
    """Finds faces. Safe to call from several threads: calls share one instance."""

    @property
    def id(self) -> str:
        """Which detector and weights these are, for records."""

    def detect(self, frame_rgb: Frame) -> list[Face]:
        """All faces of a frame that are sure enough, in no order."""

    def close(self) -> None:
        """Give the model's memory and threads back."""


class MediaPipeFaceDetector:
    """BlazeFace short range by MediaPipe tasks, one image at a time (no tracking between images).

    The frame is padded to a square here: a 128×128 resize that squeezes 16:9 makes faces narrow.
    A face has to fill about 15 % of the frame's longer side: on three pictures scores were 0.8 to
    0.9 there and 0.3 to 0.6 at 12 %, whatever the frame's size in pixels.
    """

    def __init__(self, model: Path, min_score: float = 0.7) -> None:
        """Load the model.

        Args:
            model: a `.tflite` with the metadata that MediaPipe tasks want.
            min_score: faces under this score are left out.

        Raises:
            ModelError: the file is missing or no face detector.
        """
        if not model.is_file():
            raise ModelError(f"{model}: the face detector's model is not there")
        self.id = f"mediapipe:{model.stem}"
        self._lock = threading.Lock()
        with chatter_dropped():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions
            from mediapipe.tasks.python.vision import FaceDetector as Detector
            from mediapipe.tasks.python.vision import FaceDetectorOptions, RunningMode

            self._image: Any = mediapipe.Image
            self._rgb: Any = mediapipe.ImageFormat.SRGB
            options = FaceDetectorOptions(
                base_options=BaseOptions(model_asset_path=str(model)),
                running_mode=RunningMode.IMAGE,
                min_detection_confidence=min_score,
            )
            try:
                self._detector: Any = Detector.create_from_options(options)
                # The first image is slow and noisy: not in a call.
                self.detect(np.zeros((128, 128, 3), np.uint8))
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ModelError(f"{model}: not a face detector's model: {reason}") from None

    def detect(self, frame_rgb: Frame) -> list[Face]:
        """All faces at or over the score. About 2 ms on one core.

        Raises:
            PerceptionError: no RGB uint8 frame, or the detector was closed.
        """
        square, scale, left, top = _square(check_frame(frame_rgb), DETECTOR_SIDE_PX)
        image = self._image(image_format=self._rgb, data=square)
        with self._lock:
            if self._detector is None:
                raise PerceptionError("the face detector was closed")
            found = self._detector.detect(image).detections
        return [_face(detection, square.shape[0], scale, left, top) for detection in found]

    def close(self) -> None:
        """Stop MediaPipe's threads. A second call does nothing."""
        with self._lock:
            if self._detector is not None:
                with chatter_dropped():
                    self._detector.close()
                self._detector = None


class BlazeFaceDetector:
    """The same BlazeFace model run by LiteRT and decoded here.

    MediaPipe 1.2.2 asks for play.googleapis.com when its detector is made, to report usage, and
    has no switch against that; it also imports sounddevice and matplotlib. This one stays offline,
    and takes a fraction of the memory.
    """

    def __init__(self, model: Path, min_score: float = 0.7) -> None:
        """Load the model.

        Args:
            model: MediaPipe's `face_detection_short_range.tflite`.
            min_score: faces under this score are left out.

        Raises:
            ModelError: the file is missing or no BlazeFace short range.
        """
        if not model.is_file():
            raise ModelError(f"{model}: the face detector's model is not there")
        self.id = f"blazeface:{model.stem}"
        self._min_score = min_score
        self._anchors = blazeface.anchors()
        self._lock = threading.Lock()
        with chatter_dropped():
            from ai_edge_litert.interpreter import Interpreter

            try:
                interpreter: Any = Interpreter(str(model), num_threads=1)
                interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ModelError(f"{model}: not a face detector's model: {reason}") from None
        given, out = interpreter.get_input_details(), interpreter.get_output_details()
        shapes = {tuple(int(n) for n in each["shape"]): each["index"] for each in out}
        if [list(each["shape"]) for each in given] != [[1, blazeface.SIDE, blazeface.SIDE, 3]] or (
            set(shapes) != {(1, 896, 16), (1, 896, 1)}
        ):
            raise ModelError(f"{model}: not BlazeFace short range (128×128 in, 896 anchors out)")
        self._input: int = given[0]["index"]
        self._offsets, self._logits = shapes[(1, 896, 16)], shapes[(1, 896, 1)]
        self._interpreter: Any = interpreter

    def detect(self, frame_rgb: Frame) -> list[Face]:
        """All faces at or over the score. About 2 ms on one core.

        Raises:
            PerceptionError: no RGB uint8 frame, or the detector was closed.
        """
        square, scale, left, top = _square(check_frame(frame_rgb), blazeface.SIDE, grow=True)
        x = square.astype(np.float32) / 127.5 - 1.0
        with self._lock:
            if self._interpreter is None:
                raise PerceptionError("the face detector was closed")
            self._interpreter.set_tensor(self._input, x[None])
            self._interpreter.invoke()
            offsets = self._interpreter.get_tensor(self._offsets)[0]
            logits = self._interpreter.get_tensor(self._logits)[0, :, 0]
        boxes, scores = blazeface.decode(offsets, logits, self._anchors, self._min_score)
        # Centres and points move by the padding; widths and heights (2, 3) only scale.
        shift = np.array([left, top, 0, 0, *(left, top) * 6], dtype=np.float32)
        return [
            Face(
                x=float(box[0] - box[2] / 2),
                y=float(box[1] - box[3] / 2),
                width=float(box[2]),
                height=float(box[3]),
                score=float(score),
                right_eye=(float(box[4]), float(box[5])),
                left_eye=(float(box[6]), float(box[7])),
            )
            for box, score in zip((boxes - shift) * scale, scores, strict=True)
        ]

    def close(self) -> None:
        """Give the model's memory back. A second call does nothing."""
        with self._lock:
            self._interpreter = None


def align(frame_rgb: Frame, face: Face, size: int) -> Frame:
    """The face turned upright and cropped to 1.15 × its box: RGB uint8 `[size, size, 3]`.

    The picture is turned about the middle of the box until the eyes are level. What lies outside
    of the frame repeats the frame's edge. Shrinking averages (a plain bilinear warp of a large
    face would skip pixels).

    Raises:
        PerceptionError: the face has no extent.
    """
    import cv2

    side = CROP_SCALE * max(face.width, face.height)
    if not side > 0:
        raise PerceptionError("the face has no extent")
    over = min(4, max(1, math.ceil(side / size)))
    matrix = alignment(face, size * over)
    crop = cv2.warpAffine(
        frame_rgb,
        matrix,
        (size * over, size * over),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if over > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, dtype=np.uint8)


def alignment(face: Face, size: int) -> NDArray[np.float64]:
    """The similarity `[2, 3]` from frame coordinates to those of the aligned crop of side `size`.

    The middle of the box comes to the middle of the crop and the line of the eyes is level.
    """
    scale = size / (CROP_SCALE * max(face.width, face.height))
    angle = _eye_angle(face)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    x, y = face.centre
    return np.array(
        [
            [cos, sin, size / 2 - cos * x - sin * y],
            [-sin, cos, size / 2 + sin * x - cos * y],
        ]
    )


def check_frame(frame_rgb: Frame) -> Frame:
    """The frame itself, if it is RGB uint8 `[height, width, 3]` and not empty.

    Raises:
        PerceptionError: another shape or type.
    """
    if (
        frame_rgb.dtype != np.uint8
        or frame_rgb.ndim != 3
        or frame_rgb.shape[2] != 3
        or not frame_rgb.size
    ):
        raise PerceptionError(
            f"a frame is RGB uint8 [height, width, 3], not {frame_rgb.dtype} "
            f"{list(frame_rgb.shape)}"
        )
    return frame_rgb


def _eye_angle(face: Face) -> float:
    """Slope of the line of the eyes in radians; 0 where a profile makes it meaningless."""
    dx = face.left_eye[0] - face.right_eye[0]
    dy = face.left_eye[1] - face.right_eye[1]
    if math.hypot(dx, dy) < 0.15 * face.width:
        return 0.0
    return math.atan2(dy, dx)


def _square(frame: Frame, side: int, grow: bool = False) -> tuple[Frame, float, int, int]:
    """The frame shrunk to at most `side` and padded with black on both sides to a square.

    With `grow` a smaller frame is enlarged to `side`. Centred, because a face at the edge of the
    square scores lower (0.82 against 0.88).

    Returns:
        the square picture `[s, s, 3]`, how many frame pixels one of its pixels spans, and the
        frame's left and top in it.
    """
    import cv2

    height, width = frame.shape[:2]
    scale = max(height, width) / side
    if scale < 1 and not grow:
        scale = 1.0
    if scale != 1:
        new = (max(1, round(width / scale)), max(1, round(height / scale)))
        how = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
        frame = np.asarray(cv2.resize(frame, new, interpolation=how), dtype=np.uint8)
        height, width = frame.shape[:2]
    if height == width:
        return np.ascontiguousarray(frame), scale, 0, 0
    longest = max(height, width)
    left, top = (longest - width) // 2, (longest - height) // 2
    square = np.zeros((longest, longest, 3), dtype=np.uint8)
    square[top : top + height, left : left + width] = frame
    return square, scale, left, top


def _face(detection: Any, side: int, scale: float, left: int, top: int) -> Face:
    box = detection.bounding_box
    # BlazeFace's six points begin with the right eye and the left eye, as shares of the picture.
    right_eye, left_eye = (
        ((point.x * side - left) * scale, (point.y * side - top) * scale)
        for point in detection.keypoints[:2]
    )
    return Face(
        x=(box.origin_x - left) * scale,
        y=(box.origin_y - top) * scale,
        width=box.width * scale,
        height=box.height * scale,
        score=float(detection.categories[0].score),
        right_eye=right_eye,
        left_eye=left_eye,
    )


DETECTORS: dict[str, type[BlazeFaceDetector] | type[MediaPipeFaceDetector]] = {
    "blazeface": BlazeFaceDetector,
    "mediapipe": MediaPipeFaceDetector,
}


def check_detector(name: str) -> None:
    """Refuse a name that is not in the table, before anything is fetched for it.

    Raises:
        PerceptionError: no such detector; the message lists them.
    """
    if name not in DETECTORS:
        raise PerceptionError(f"no face detector {name!r}; one of {', '.join(DETECTORS)}")


def load_detector(name: str, path: Path, min_score: float = 0.7) -> FaceDetector:
    """The detector called `name` on the weights at `path`.

    Raises:
        PerceptionError: no such detector (the message lists them).
        ModelError: unusable weights.
    """
    check_detector(name)
    return DETECTORS[name](path, min_score)
