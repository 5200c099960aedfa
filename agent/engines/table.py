"""Which engines there are, and how a configuration becomes a set of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.config import Config
from agent.engines.protocols import (
    SAMPLE_RATE_HZ,
    VAD_FRAME_SAMPLES,
    EndOfTurn,
    Message,
    Recognizer,
    Responder,
    Sentiment,
    Speaker,
    VoiceActivity,
)
from agent.errors import ConfigError
from agent.threads import wait_briefly

ENGINES: dict[str, dict[str, str]] = {
    "voice_activity": {"silero": "agent.engines.voice:open_silero"},
    "end_of_turn": {"smart-turn": "agent.engines.end_of_turn:open_smart_turn"},
    "recognizer": {"faster-whisper": "agent.engines.recognizer:open_faster_whisper"},
    "responder": {
        "transformers": "agent.engines.responder_transformers:open_transformers",
        "openai": "agent.engines.responder_openai:open_openai",
    },
    "speaker": {"hibari": "agent.engines.speaker:open_hibari"},
    "sentiment": {"vader": "agent.engines.sentiment:open_vader"},
}
"""Role to engine name to the function that opens it from a `Config`."""


@dataclass(slots=True, frozen=True)
class Engines:
    """One engine for each role; shared by all calls of a process."""

    voice_activity: VoiceActivity
    end_of_turn: EndOfTurn
    recognizer: Recognizer
    responder: Responder
    speaker: Speaker
    sentiment: Sentiment


def build(config: Config, responder: Responder | None = None) -> Engines:
    """Load the configured engines; slow.

    Args:
        config: which ones.
        responder: one that is loaded already, instead of the configured one.

    Raises:
        ConfigError: an unknown engine name; the valid ones are listed.
        WeightsError: weights that are missing or wrong.
    """
    loaded: dict[str, Any] = {} if responder is None else {"responder": responder}
    return Engines(**{role: loaded.get(role) or _open(role, config) for role in ENGINES})


def open_responder(config: Config, adapter: Path | None) -> Responder:
    """The configured responder with this adapter (None: the base model alone), loaded and warm.

    Raises:
        WeightsError, PolicyError: the adapter does not fit or is damaged.
    """
    settings = config.responder.model_copy(update={"adapter": adapter})
    responder: Responder = _open("responder", config.model_copy(update={"responder": settings}))
    _warm_up_responder(responder)
    return responder


def check(config: Config) -> None:
    """Check the engine names without loading anything.

    Raises:
        ConfigError: an unknown engine name.
    """
    for role, known in ENGINES.items():
        name = getattr(config, role).engine
        if name not in known:
            raise ConfigError(f"{role}.engine = {name!r} is unknown", f"one of: {', '.join(known)}")


def _open(role: str, config: Config) -> Any:
    check(config)
    wait_briefly()  # before the first of them loads OpenMP
    module, _, function = ENGINES[role][getattr(config, role).engine].partition(":")
    return getattr(importlib.import_module(module), function)(config)


def warm_up(engines: Engines) -> None:
    """Run each engine once: first calls are slow (kernels, lexicons)."""
    noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE_HZ).astype(np.float32)
    engines.voice_activity.open().feed(noise[:VAD_FRAME_SAMPLES])
    engines.end_of_turn.complete(noise)
    engines.recognizer.transcribe(noise)
    engines.speaker.say("Hello.")
    engines.sentiment.score("Hello.")
    _warm_up_responder(engines.responder)


def _warm_up_responder(responder: Responder) -> None:
    if getattr(responder, "remote", False):  # nobody's server is asked to talk to itself
        return
    hello = [Message("system", "Be kind."), Message("user", "Hello.")]
    for _ in zip(range(4), responder.open(seed=0).reply(hello, lambda: False), strict=False):
        pass
