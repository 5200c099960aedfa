"""Speech to text: Whisper by faster-whisper (CTranslate2).

Whisper encodes 30 s whatever the utterance, which is most of its time. Here the window is cut to
the utterance and a margin; the result is kept only when it passes a check (confidence, repetition,
pace), else the full 30 s pass decides.

Measured with the tiny model on 39 utterances (a voice at three pitches, three recordings), clean
and with white noise at 20 and 10 dB: a short pass takes 0.3 of a full pass's time; with the check
the median is 0.33, 0.39 and 0.35 of it, and the words are the same (error rate 0.6 %). What a short
window does wrong is to say the utterance twice, quite sure of itself (-0.1 a token): a check that
missed it gave 6 to 10 % errors.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from agent import weights
from agent.config import Config
from agent.engines.protocols import SAMPLE_RATE_HZ, Pcm, Transcript
from agent.errors import ConfigError

MARGIN_S = 4.0
"""Silence encoded after the utterance. Of 39 utterances (clean, 20 dB, 10 dB) the full pass was
needed for 13, 28, 29 with 1 s, 10, 22, 11 with 3 s, and 9, 16, 9 with 4 s."""
LONGEST_SHORT_S = 24.0
"""Utterances over this take the full pass (Whisper's window is 30 s)."""
SHORTEST_S = 0.15
SURE = -0.35
"""Mean log-probability under which a short pass is not believed (at -0.6 it garbled numbers)."""
DOUBTFUL = -0.6
"""Mean log-probability under which words are weighed against silence."""
MAX_COMPRESSION = 2.4
"""Whisper's own bound for text that repeats itself."""
MAX_WORDS_PER_S = 6.5
PHANTOMS = frozenset(
    "you|thank you|thanks for watching|thank you for watching|thank you very much|bye|bye bye|"
    "so|okay|the|subtitles by the amara org community|please subscribe".split("|")
)
"""What Whisper writes when there was nothing: dropped unless it is sure."""


class FasterWhisper:
    """A Whisper model in CTranslate2 format.

    Args:
        model: folder with model.bin, config and tokenizer.
        name: id as logged.
        short_window: try the cut window first.
        min_confidence: mean log-probability under which nothing was understood.
    """

    def __init__(
        self,
        model: Path,
        name: str,
        *,
        language: str = "en",
        compute_type: str = "int8",
        device: str = "cpu",
        threads: int = 2,
        short_window: bool = True,
        min_confidence: float = -1.0,
    ) -> None:
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer

        try:
            self._model: Any = WhisperModel(
                str(model),
                device=device,
                compute_type=compute_type,
                cpu_threads=threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{name} cannot run with recognizer.device = {device!r} and compute_type = "
                f"{compute_type!r}: {str(error).splitlines()[0]}",
                "on a machine without a GPU: device = 'cpu', compute_type = 'int8'",
            ) from None
        if language not in self._model.supported_languages:
            raise ConfigError(
                f"recognizer.language = {language!r}: {name} does not know it",
                "a Whisper code, e.g. en, de, fr",
            )
        self._language = language
        self._short = short_window
        self._least = min_confidence
        self._tokenizer = Tokenizer(
            self._model.hf_tokenizer,
            self._model.model.is_multilingual,
            task="transcribe",
            language=language,
        )
        self.id = name

    def transcribe(self, pcm: Pcm) -> Transcript:
        """The words of one utterance, float32 [samples] at 16 kHz; empty text for none."""
        seconds = len(pcm) / SAMPLE_RATE_HZ
        if seconds < SHORTEST_S:
            return Transcript("", 0.0)
        if self._short and seconds <= LONGEST_SHORT_S:
            short = self._short_pass(pcm)
            if _plausible(short, seconds):
                return self._sifted(short)
        return self._sifted(self._full_pass(pcm))

    def _short_pass(self, pcm: Pcm) -> Transcript:
        frames = int((len(pcm) / SAMPLE_RATE_HZ + MARGIN_S) * 100) // 2 * 2
        mel = self._model.feature_extractor(pcm, chunk_length=None)[:, :frames]
        mel = np.pad(mel, ((0, 0), (0, frames - mel.shape[1]))).astype(np.float32)
        encoded = self._model.encode(mel)
        prompt = [*self._tokenizer.sot_sequence, self._tokenizer.no_timestamps]
        longest = len(prompt) + 20 + int(12 * len(pcm) / SAMPLE_RATE_HZ)
        (result,) = self._model.model.generate(
            encoded,
            [prompt],
            beam_size=1,
            sampling_temperature=0,
            return_scores=True,
            return_no_speech_prob=True,
            max_length=min(448, longest),
            suppress_blank=True,
        )
        tokens = result.sequences_ids[0]
        text = self._tokenizer.decode(tokens).strip()
        # CTranslate2 normalises the score by the length without the end token.
        confidence = float(result.scores[0]) * len(tokens) / (len(tokens) + 1)
        if result.no_speech_prob > 0.8 and confidence < DOUBTFUL:
            return Transcript("", confidence, full_pass=False)
        return Transcript(text, confidence, full_pass=False)

    def _full_pass(self, pcm: Pcm) -> Transcript:
        segments, _ = self._model.transcribe(
            pcm,
            language=self._language,
            beam_size=1,
            temperature=[0.0, 0.4],
            without_timestamps=len(pcm) < 29 * SAMPLE_RATE_HZ,
            condition_on_previous_text=False,
        )
        parts = list(segments)
        if not parts:
            return Transcript("", 0.0)
        confidence = float(np.mean([part.avg_logprob for part in parts]))
        return Transcript(" ".join(part.text.strip() for part in parts).strip(), confidence)

    def _sifted(self, heard: Transcript) -> Transcript:
        """Drop what was probably not said."""
        bare = re.sub(r"[^\w ]+", "", heard.text.lower()).strip()
        doubtful = heard.confidence < DOUBTFUL and bare in PHANTOMS
        noise = not bare or re.fullmatch(r"[\[(*♪].*[\])*♪]", heard.text)
        if noise or doubtful or heard.confidence < self._least:
            return Transcript("", heard.confidence, heard.full_pass)
        return heard


def _plausible(heard: Transcript, seconds: float) -> bool:
    """Whether a short pass can be believed."""
    if heard.confidence < SURE:
        return False
    data = heard.text.encode()
    words = re.findall(r"\w+", heard.text.lower())
    squeezed = len(data) > 40 and len(data) / len(zlib.compress(data)) > MAX_COMPRESSION
    hurried = len(words) > 3 + MAX_WORDS_PER_S * seconds
    return not (squeezed or hurried or repeats_itself(words))


def repeats_itself(words: list[str]) -> bool:
    """Whether the same words come twice: four or more anywhere, three or more in a row, any at the
    end, or the beginning again at the end (a repetition that the length limit cut)."""
    n = len(words)
    runs = [tuple(words[i : i + 4]) for i in range(n - 3)]
    in_a_row = any(words[i : i + 3] == words[i + 3 : i + 6] for i in range(n - 5))
    at_end = any(words[-2 * k : -k] == words[-k:] for k in range(1, min(3, n // 2) + 1))
    again = n > 3 and words[-3:] == words[:3]
    return len(set(runs)) < len(runs) or in_a_row or at_end or again


def open_faster_whisper(config: Config) -> FasterWhisper:
    """The recogniser of `recognizer.engine = "faster-whisper"`."""
    settings = config.recognizer
    return FasterWhisper(
        weights.ensure(settings.model, config.models),
        settings.model,
        language=settings.language,
        compute_type=settings.compute_type,
        device=settings.device,
        threads=settings.threads,
        short_window=settings.short_window,
        min_confidence=settings.min_confidence,
    )
