"""What the turn-taking machine is told (events) and what it asks for (actions).

`TurnTaker` in agent/turn_taking.py takes the one and returns the other; agent/call.py turns
engines, media and timers into events, and carries the actions out. All times are seconds on the
session clock.
"""

from __future__ import annotations

from dataclasses import dataclass

FRAME_S = 0.032
"""One voice-activity frame: 512 samples at 16 kHz."""

# --- events: what happened -----------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Started:
    """The peers are connected: the greeting may be spoken."""


@dataclass(slots=True, frozen=True)
class Voice:
    """One voice-activity frame of `FRAME_S` ended now."""

    probability: float


@dataclass(slots=True, frozen=True)
class Heard:
    """The recogniser finished a take; empty text when there were no words."""

    take: int
    text: str


@dataclass(slots=True, frozen=True)
class Scored:
    """The end-of-turn model judged a take: probability that the turn is over."""

    take: int
    complete: float


@dataclass(slots=True, frozen=True)
class PlaybackStarted:
    """The first sample of an agent turn was handed to the transport."""


@dataclass(slots=True, frozen=True)
class PlaybackEnded:
    """The last sample of an agent turn was handed to the transport."""

    broken: bool = False
    """The policy failed in the middle of it: more was to come."""


@dataclass(slots=True, frozen=True)
class DraftFailed:
    """No reply could be made for the released take."""


@dataclass(slots=True, frozen=True)
class Detached:
    """The peer is gone, perhaps for a moment."""


@dataclass(slots=True, frozen=True)
class Attached:
    """The peer is back."""


Event = (
    Started
    | Voice
    | Heard
    | Scored
    | PlaybackStarted
    | PlaybackEnded
    | DraftFailed
    | Detached
    | Attached
)


# --- actions: what the call must do ----------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Transcribe:
    """Recognise the audio from `start_s` to `end_s`; answer with `Heard(take)`."""

    take: int
    start_s: float
    end_s: float


@dataclass(slots=True, frozen=True)
class Preview:
    """Recognise for the captions only; may be skipped when the recogniser is busy."""

    start_s: float
    end_s: float


@dataclass(slots=True, frozen=True)
class Score:
    """Judge the end of turn on the audio up to `end_s`; answer with `Scored(take)`."""

    take: int
    start_s: float
    end_s: float


@dataclass(slots=True, frozen=True)
class Draft:
    """Start to make the reply to `text`, silently."""

    take: int
    text: str


@dataclass(slots=True, frozen=True)
class CancelDraft:
    """The user goes on: throw the draft away."""


@dataclass(slots=True, frozen=True)
class Release:
    """The turn is the agent's: play the draft of this take as it becomes ready."""

    take: int
    speech_end_s: float


@dataclass(slots=True, frozen=True)
class UserTurn:
    """The user's turn is over for good: log it."""

    start_s: float
    end_s: float
    text: str


@dataclass(slots=True, frozen=True)
class Hold:
    """Silence the agent at once, keep the rest."""


@dataclass(slots=True, frozen=True)
class Resume:
    """Go on from the word that was cut."""


@dataclass(slots=True, frozen=True)
class Truncate:
    """Drop what is left of the agent's turn; it ends where it was held."""


@dataclass(slots=True, frozen=True)
class Say:
    """Speak a line of the program's own: `greeting`, `prompt`, `goodbye` or `apology`."""

    kind: str
    number: int = 0


@dataclass(slots=True, frozen=True)
class Forget:
    """What was heard was no turn (noise, backchannel, echo): drop its caption."""


@dataclass(slots=True, frozen=True)
class Show:
    """The state a person should see: `listening`, `thinking` or `speaking`."""

    state: str


@dataclass(slots=True, frozen=True)
class TimeOut:
    """Nobody has spoken for too long: end the call."""


Action = (
    Transcribe
    | Preview
    | Score
    | Draft
    | CancelDraft
    | Release
    | UserTurn
    | Hold
    | Resume
    | Truncate
    | Say
    | Forget
    | Show
    | TimeOut
)
