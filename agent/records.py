"""The one contract: what a call leaves behind. Files, HTTP and the database speak these shapes.

Times are float seconds on the session clock, which counts received audio samples; wall time is
stored once, at the session's start. `SCHEMA_VERSION` changes when a field changes its meaning.
"""

from __future__ import annotations

import enum
import hashlib
import math
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    computed_field,
    field_validator,
    model_validator,
)

SCHEMA_VERSION = 1

OVERALL_AFFECT_QUESTION = (
    "Overall during your conversation, to what extent did you feel positive feelings "
    "(e.g., good, pleasant, happy) or negative feelings (e.g., bad, unpleasant, unhappy)?"
)
"""The survey item of the paper (section 3; CANDOR's `overall_affect`), asked once a session."""

Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(allow_inf_nan=False)]
Label = Literal[0, 1] | None
"""Local implicit label Γ (paper eq. 7): 1 positive, 0 not, None unknown (no face was seen)."""


class Consent(enum.StrEnum):
    """What the person agreed to before the camera started."""

    TALK_ONLY = "talk_only"
    """Nothing of the call is stored but a count."""
    KEEP = "keep"
    """Transcript and affect labels are kept for review, never read by learning."""
    LEARN = "learn"
    """Kept, and learning may read them."""


class EndedHow(enum.StrEnum):
    """How a session came to its end."""

    HUNG_UP = "hung_up"
    DROPPED = "dropped"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class AffectWindow(_Record):
    """One sliding window of facial affect (2 s in the paper)."""

    index: int = Field(ge=0)
    start_s: Seconds
    end_s: Seconds
    face_found: bool
    """False when too little of the window showed a face: unknown, not neutral."""
    coverage: Probability
    """Share of the window's analysed frames in which a face was found."""
    probabilities: dict[str, Probability] | None = None
    """Mean class probabilities over the frames with a face; None without a face."""
    valence: Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)] | None = None
    positive: bool | None = None
    """Γ of the paper for this window; None when no face was seen for most of it."""
    classifier: str


class Latency(_Record):
    """Where the time of one reply went, in milliseconds from the user's true end of speech."""

    end_of_turn_wait_ms: Milliseconds | None = None
    """End of speech to the moment the turn was taken as over."""
    transcription_ms: Milliseconds | None = None
    """Compute time of the transcription the reply was drafted from."""
    first_token_ms: Milliseconds | None = None
    """Compute time from the start of the draft to its first token."""
    first_sentence_ms: Milliseconds | None = None
    """Compute time from the start of the draft to its first speakable chunk."""
    first_audio_ms: Milliseconds | None = None
    """Compute time of the first chunk's synthesis."""
    voice_to_voice_ms: Milliseconds | None = None
    """End of speech to the first sample of the reply handed to the transport."""


class Turn(_Record):
    """One turn of either side, durable when it ends."""

    index: int = Field(ge=0)
    speaker: Literal["user", "agent"]
    start_s: Seconds
    end_s: Seconds
    text: str
    """What was said; for the agent, the words that were really heard."""
    generated_text: str | None = None
    """Agent only: everything the policy wrote for this turn, heard or not."""
    interrupted: bool = False
    """Agent only: the user barged in and the rest was never played."""
    kind: Literal["reply", "greeting", "prompt", "goodbye", "apology", "utterance"] = "utterance"
    """`utterance` for the user; for the agent `reply` when the policy spoke, else the program."""
    policy_id: str | None = None
    engines: dict[str, str] = Field(default_factory=dict)
    """Role (recognizer, responder, speaker, ...) to engine id."""
    latency: Latency | None = None
    li: Label = None
    """Agent turns: the listener's label while and after the turn was heard."""
    li_coverage: Probability | None = None
    """Share of the label's windows in which a face was seen."""
    li_windows: list[int] = Field(default_factory=list)
    """Indices of the windows the label came from."""
    li_rule: str | None = None
    sentiment: Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)] | None = None
    """Language sentiment of `text`, -1 to 1."""
    prosody: dict[str, float] | None = None
    """User turns: loudness, pitch and rate (see perception.prosody)."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def spoken_text(self) -> str | None:
        """Agent only: the words that were really played (the same as `text`)."""
        return self.text if self.speaker == "agent" else None

    @field_validator("prosody")
    @classmethod
    def _finite(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        """JSON has no NaN: what could not be measured is left out."""
        return None if value is None else {k: v for k, v in value.items() if math.isfinite(v)}

    @model_validator(mode="before")
    @classmethod
    def _drop_computed(cls, data: Any) -> Any:
        if isinstance(data, dict) and "spoken_text" in data:
            data = {k: v for k, v in data.items() if k != "spoken_text"}
        return data

    @model_validator(mode="after")
    def _ordered(self) -> Turn:
        if self.end_s < self.start_s:
            raise ValueError(f"turn {self.index} ends ({self.end_s}) before it starts")
        return self


class Session(_Record):
    """One call, from the greeting to the rating."""

    schema_version: Literal[1] = 1
    id: str = Field(default_factory=lambda: new_session_id(), pattern=r"^[A-Za-z0-9_-]{1,64}$")
    started_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    ended_how: EndedHow | None = None
    consent: Consent
    source: Literal["browser", "talk", "replay", "simulated", "import"] = "browser"
    overall_affect: Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)] | None = None
    overall_affect_at: datetime | None = None
    overall_affect_source: str | None = None
    """How the rating was given: `page`, `terminal`, `cli`, `replay`, `import`, `review`."""
    comment: str | None = None
    excluded: bool = False
    excluded_reason: str | None = None
    policy_id: str | None = None
    config_digest: str | None = None
    program_version: str | None = None
    note: str | None = None
    """What the operator noted about it."""
    tags: list[str] = Field(default_factory=list)
    """The operator's, sorted, each once."""
    person: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the token by which the person finds all of their sessions (`person_of`)."""
    turns: list[Turn] = Field(default_factory=list)
    windows: list[AffectWindow] = Field(default_factory=list)

    @field_validator("started_at", "ended_at", "overall_affect_at")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a time needs its zone (e.g. 2026-11-23T10:00:00Z)")
        try:
            return value.astimezone(UTC) if value is not None else None
        except OverflowError:
            raise ValueError("a time outside the years 1 to 9999 in UTC") from None


def person_of(token: str) -> str:
    """What is stored of a person's token: its SHA-256, so that the store gives no token away.

    Raises:
        ValueError: shorter than 16 characters, which somebody could guess, or longer than 128.
    """
    token = token.strip()
    if not 16 <= len(token) <= 128:
        raise ValueError("a person's token has 16 to 128 characters")
    return hashlib.sha256(token.encode()).hexdigest()


def new_session_id() -> str:
    """A session id that sorts by time: UTC to the second, then 32 random bits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
