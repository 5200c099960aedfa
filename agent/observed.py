"""What somebody who watches over a server may learn of a call: counts, times and ids.

A call tells its `Observer`; this base class listens to nothing, so that a call without telemetry
costs nothing. agent/telemetry has the one that counts and traces.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.records import AffectWindow, EndedHow, Turn

Span = tuple[float, float]
"""Begin and end, seconds of `time.perf_counter`."""


@dataclass(slots=True, frozen=True)
class Marks:
    """When the parts of one turn happened; None where there was no such part."""

    spoken: Span | None = None
    """The turn itself, as it was heard: the user's speech, or the agent's playback."""
    end_of_turn_wait: Span | None = None
    """From the user's end of speech until the turn was taken."""
    transcription: Span | None = None
    first_token: Span | None = None
    """From the start of the draft."""
    first_sentence: Span | None = None
    """From the start of the draft."""
    first_audio: Span | None = None
    """The synthesis of the first chunk."""

    @property
    def stages(self) -> dict[str, Span]:
        """The parts that there were, by name."""
        named = {
            "end_of_turn_wait": self.end_of_turn_wait,
            "transcription": self.transcription,
            "first_token": self.first_token,
            "first_sentence": self.first_sentence,
            "first_audio": self.first_audio,
            "playback": self.spoken,
        }
        return {name: span for name, span in named.items() if span is not None}


class Observer:
    """Hears of one call; this one forgets it. For the event loop's thread."""

    def turn(self, turn: Turn, marks: Marks, gap_s: float = 0.0) -> None:
        """A turn has ended; `gap_s` of silence was played in its middle, since speech was late."""

    def window(self, window: AffectWindow) -> None:
        """An affect window has closed."""

    def frames(self, read: int, dropped: int) -> None:
        """Video frames that perception has read and dropped since the call began."""

    def barge_in(self, seconds: float) -> None:
        """The agent fell silent, so long after the user had begun to speak."""

    def policy(self, outcome: str) -> None:
        """The policy was asked for a reply: `ok`, `cancelled` or `failed`."""

    def write_failed(self) -> None:
        """The store did not take a write."""

    def ended(self, how: EndedHow, turns: list[Turn]) -> None:
        """The call is over; all labels are what they will be."""


NOBODY = Observer()
