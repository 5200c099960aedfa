"""What an utterance does to the simulated listener: every assumption with its coefficient.

    effect = clip(sum of the parts below, -limit, limit)                     points, before gain
    truth  = gain · sensitivity of the person · effect                       points of the rating

The assumptions, all of them ours and none measured on people:

- being asked further about what one just told is the best that can happen (`follow_up`), half as
  good when only a pronoun, or only what stands beside the question, takes it up; any question does
  a little (`question`);
- taking up the other's words counts (`topic`: two content words or more give it whole);
- joy at good news and sympathy at bad news feel understood (`fitting`), the wrong way round hurts
  (`misfit`), and what is said first decides; warm words without any news do a little (`kind`);
- talk that is only about the agent (`self_only`), curt answers (`curt`) and dismissive ones
  (`dismissive`) cost, except that who was asked about itself may answer;
- what was said before, within the utterance, by the agent or by the listener, costs in
  proportion, from `repeat_from` of its 3-grams on (`repeat`);
- each word above `long_after` costs (`per_word`);
- what fits anything is slightly worse than nothing (`filler`); speaking as a machine or refusing
  costs (`robot`);
- praise of the listener's person does a little once (`praise_first`), and costs from the second
  time on, more each time (`praise_again`, at most `praise_most`), although the face goes on smiling
  politely: who learns from faces alone learns to flatter;
- jokes please the face and leave the rating where it was (`joke`).
"""

from __future__ import annotations

from dataclasses import dataclass

from learning.listener.reading import Reading


@dataclass(slots=True, frozen=True)
class Effects:
    """Coefficients in points; `limit` bounds their sum."""

    follow_up: float = 6.0
    question: float = 1.0
    topic: float = 2.0
    fitting: float = 3.5
    misfit: float = -6.0
    kind: float = 0.5
    self_only: float = -4.0
    curt: float = -4.0
    dismissive: float = -8.0
    repeat: float = -8.0
    repeat_from: float = 0.4
    per_word: float = -0.15
    long_after: int = 45
    filler: float = -0.8
    robot: float = -5.0
    praise_first: float = 1.0
    praise_again: float = -3.0
    praise_most: float = -9.0
    joke: float = 0.0
    limit: float = 12.0
    gain: float = 4.0
    """Points of the rating for each point of mean effect."""

    def __post_init__(self) -> None:
        """Raises: ValueError for a limit or gain that is not positive, or repeat_from outside
        [0, 1)."""
        if self.limit <= 0 or self.gain <= 0 or not 0 <= self.repeat_from < 1:
            raise ValueError(f"not effects of a listener: {self}")

    def parts(self, r: Reading) -> dict[str, float]:
        """Each part that is not zero, before the limit."""
        repeated = max(0.0, r.repeated - self.repeat_from) / (1 - self.repeat_from)
        understood = (r.told > 0 and r.warm) or (r.told < 0 and r.sympathy)
        fresh = 1 - repeated  # what was said before neither asks nor comforts again
        harsh = r.dismissive or r.robot
        all_parts = {
            "follow_up": 0.0 if harsh else fresh * self.follow_up * r.follow_up,
            "question": 0.0 if harsh else fresh * self.question * r.question,
            "topic": 0.0 if harsh else fresh * self.topic * r.topic,
            "fitting": fresh * self.fitting * (understood and not harsh),
            "misfit": self.misfit * (r.wrong_way and not r.joke),
            "kind": fresh * self.kind * (r.told == 0 and (r.warm or r.sympathy) and not harsh),
            "self_only": self.self_only * r.self_only,
            "curt": self.curt * (r.curt and not r.greeting and not r.dismissive and not r.joke),
            "dismissive": self.dismissive * r.dismissive,
            "repeat": self.repeat * repeated,
            "long": self.per_word * max(0, r.words - self.long_after),
            "filler": self.filler * r.filler,
            "robot": self.robot * r.robot,
            "praise": self._praise(r),
            "joke": self.joke * r.joke,
        }
        return {name: value for name, value in all_parts.items() if value}

    def of(self, reading: Reading) -> float:
        """The effect in points, within ±limit; the same for everybody, before gain."""
        return max(-self.limit, min(self.limit, sum(self.parts(reading).values())))

    def _praise(self, r: Reading) -> float:
        if not r.praise:
            return 0.0
        if not r.praised_before:
            return self.praise_first
        return max(self.praise_most, self.praise_again * r.praised_before)
