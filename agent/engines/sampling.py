"""How a policy draws its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from agent.config import ResponderEngine


@dataclass(slots=True, frozen=True)
class Sampling:
    """How the next token is drawn. Temperature 0 takes the likeliest."""

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    max_new_tokens: int = 140

    @classmethod
    def of(cls, settings: ResponderEngine) -> Sampling:
        """What the configuration says."""
        return cls(
            settings.temperature,
            settings.top_p,
            settings.repetition_penalty,
            settings.max_new_tokens,
        )
