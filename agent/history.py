"""The dialogue as the policy reads it: system prompt, then the turns as they were heard.

Windowed by tokens with hysteresis: when the budget is passed, old turns go until 60 % of it is
used, so that the front of the prompt stays the same for several turns and the policy's attention
cache keeps its worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.engines.protocols import Message
from agent.records import Turn

KEEP_SHARE = 0.6
RESERVE_TOKENS = 40
"""Kept free for what the user will say, so that its arrival does not move the window."""
OPENING = Message("user", "Hi.")
"""Stands before an agent's greeting: chat templates of the LLaMA family want the user first."""


class History:
    """Messages for the policy, from the turns of one session."""

    def __init__(
        self, system_prompt: str, budget_tokens: int, count_tokens: Callable[[str], int]
    ) -> None:
        self._system = Message("system", system_prompt)
        self._budget = budget_tokens
        self._count = count_tokens
        self._first = 0  # index of the oldest turn still told
        self._sizes: dict[tuple[int, str], int] = {}

    def messages(self, turns: Sequence[Turn], said: str | None = None) -> list[Message]:
        """The prompt: system, the window of `turns`, and `said`, what the user has just said."""
        spoken = [turn for turn in turns if turn.text]
        self._first = min(self._first, len(spoken))
        if self._used(spoken[self._first :], said) > self._budget:
            while (
                self._first < len(spoken)
                and self._used(spoken[self._first :], said) > KEEP_SHARE * self._budget
            ):
                self._first += 1
        out: list[Message] = []
        for turn in spoken[self._first :]:
            _append(out, "user" if turn.speaker == "user" else "assistant", turn.text)
        if said:
            _append(out, "user", said)
        if out and out[0].role == "assistant":
            out.insert(0, OPENING)
        return [self._system, *out]

    def _used(self, turns: Sequence[Turn], said: str | None) -> int:
        used = self._size(-1, self._system.content)
        used += RESERVE_TOKENS if said is None else self._size(-2, said)
        return used + sum(self._size(turn.index, turn.text) for turn in turns)

    def _size(self, key: int, text: str) -> int:
        if (key, text) not in self._sizes:
            self._sizes[(key, text)] = self._count(text) + 5  # the template's own tokens
        return self._sizes[(key, text)]


def _append(out: list[Message], role: str, text: str) -> None:
    """Add a message; two of one role in a row become one."""
    if out and out[-1].role == role:
        text = f"{out.pop().content} {text}"
    out.append(Message("user" if role == "user" else "assistant", text))
