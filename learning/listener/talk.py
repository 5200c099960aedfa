"""How the simulated listener talks: small stories, told further or not, as the agent invites it.

An open question is answered with the next fact of the story, good turns are followed by longer and
more open ones, bad turns by short ones; praise, jokes, misread news, repetition and machine talk
are answered as such. The words are templates filled from the person's own life.
"""

from __future__ import annotations

import random
from collections import deque

from learning.listener import wording
from learning.listener.persona import Persona
from learning.listener.phrases import fill, sentence
from learning.listener.reading import Reading
from learning.listener.topics import TOPICS, Fact


class Talk:
    """One listener's side of one call."""

    def __init__(self, who: Persona, rng: random.Random) -> None:
        self._who, self._rng = who, rng
        topics = list(who.topics)
        for i in range(len(topics) - 1):  # mostly the favourites first, not always in one order
            if rng.random() < 0.4:
                topics[i], topics[i + 1] = topics[i + 1], topics[i]
        self._topics = deque(topics)
        self._story: deque[Fact] = deque()
        self.mood = 0.0
        """Running mean of effects, points."""
        self.fact: Fact | None = None
        """What was told last."""
        self.life = dict(who.life)

    def hear(self, effect: float) -> None:
        """Take an utterance's effect to heart."""
        self.mood = 0.75 * self.mood + 0.25 * effect

    def hello(self) -> str:
        """The answer to a greeting; nothing has been felt yet."""
        parts = [self._say(wording.HELLO)]
        if self._rng.random() < self._who.talkativeness:
            parts.append(self._tell(turn_to=False))
        return " ".join(parts)

    def answer(self, reading: Reading, effect: float) -> str:
        """What the listener says to an utterance read so."""
        reaction, opens = self._reaction(reading, effect)
        openness = self._who.talkativeness + 0.07 * self.mood + opens
        parts = [reaction] if reaction else []
        if self._rng.random() < openness or not (parts or reading.follow_up):
            asked = reading.follow_up > 0 or reading.question
            lead = (
                self._say(wording.ANSWER)
                if asked and not parts and self._rng.random() < 0.6
                else ""
            )
            parts.append(self._tell(turn_to=not reading.follow_up, lead=lead))
            if self._rng.random() < openness - 0.3:
                parts.append(self._feel())
            if self._rng.random() < openness - 0.8 and self._story:
                parts.append(self._tell(turn_to=False))
        if self._rng.random() < 0.06 and openness > 0.4:
            parts.append(self._say(wording.AND_YOU))
        return " ".join(parts) or self._say(wording.NEUTRAL)

    def _reaction(self, r: Reading, effect: float) -> tuple[str, float]:
        """The first words of an answer, and how much further talk they invite."""
        if r.robot:
            return self._say(wording.MACHINE), -0.3
        if r.repeated > 0.6:
            return self._say(wording.AGAIN), -0.3
        if r.praise:
            return (
                (self._say(wording.THANKS_AGAIN), -0.3)
                if r.praised_before
                else (self._say(wording.THANKS), 0.1)
            )
        if r.joke:
            return self._say(wording.LAUGH), 0.0
        if r.dismissive or r.curt:
            return self._say(wording.COLD), -0.3
        if r.wrong_way and not r.joke:
            return self._say(wording.CORRECT), -0.2
        if r.self_only:
            return self._say(wording.ABOUT_YOU), -0.1
        if r.question:
            return "", 0.5 if r.follow_up else 0.25
        return (self._say(wording.AGREE), 0.3) if effect > 2 else (self._say(wording.NEUTRAL), 0.05)

    def _tell(self, *, turn_to: bool, lead: str = "") -> str:
        """The next fact of the story, or the first one of another."""
        changes = not self._story or (turn_to and self._rng.random() < 0.25)
        if changes:
            self._next_story()
            if not lead and self.fact is not None and self._rng.random() < 0.7:
                lead = self._say(wording.TURN_TO)
        self.fact = self._story.popleft()
        told = fill(self.fact.text, self._rng, self.life)
        if lead:
            return sentence(f"{lead.rstrip('.')}, {told}")
        return sentence(told)

    def _next_story(self) -> None:
        topic = self._topics.popleft()
        self._topics.append(topic)
        first, *rest = TOPICS[topic]
        kept = set(self._rng.sample(range(len(rest)), self._rng.randint(3, len(rest))))
        self._story = deque([first, *(fact for i, fact in enumerate(rest) if i in kept)])

    def _feel(self) -> str:
        return self._say(wording.FEELING[self.fact.news if self.fact else 0])

    def _say(self, templates: tuple[str, ...]) -> str:
        return fill(self._rng.choice(templates), self._rng, self.life)
