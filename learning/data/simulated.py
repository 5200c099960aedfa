"""Dialogues of scripted agents with simulated listeners whose true reaction to each turn is known.

An agent's act is drawn from its call's mixture of styles (attentive, self-centred, curt,
flattering, repetitive, joker, generic), its words from templates that take up what the listener
just told. What an utterance contributes is read from the words (`learning.listener`), not from the
act, so an attentive question that misses its mark is worth what it is worth. Good acts go together
in a call: a rating alone blames the company an act keeps.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from learning.data import simulated_wording as say
from learning.dialogue import Dataset, Dialogue, Utterance
from learning.errors import DataError
from learning.listener import Assumptions, Listener, persona
from learning.listener.phrases import agree, fill, sentence
from learning.listener.reading import asks_back, news_of

STYLES: dict[str, dict[str, float]] = {
    "attentive": {
        "follow_up": 5, "feel": 3, "feel_and_ask": 5, "pronoun": 2, "keen": 2, "filler": 2,
    },
    "self-centred": {"self": 6, "question": 1, "filler": 2, "keen": 1, "dismiss": 0.7, "feel": 0.5},
    "curt": {"curt": 6, "dismiss": 2, "filler": 2, "question": 1.5, "pronoun": 0.5},
    "flattering": {"flatter": 5, "feel": 1.5, "follow_up": 1.5, "filler": 1.5, "question": 1},
    "repetitive": {"repeat": 4, "pronoun": 1.5, "filler": 2, "question": 2, "follow_up": 1},
    "joker": {"joke": 5, "follow_up": 1.5, "feel": 1, "misfit": 1, "filler": 1, "question": 1},
    "generic": {
        "filler": 5, "question": 3, "feel": 1.5, "keen": 1.5, "lecture": 1, "robot": 1, "misfit": 1,
    },
}  # fmt: skip
"""Style to acts with their weights."""
CONCENTRATION = 0.2
"""Of the Dirichlet mixture of styles in a call: small means mostly one style."""
COMMON = {"attentive": 2.0}
"""Styles that are more common than the others, and how much."""
MEDIAN_TURNS = 36
SIGMA_TURNS = 0.75
"""Turns a call, both sides: lognormal."""
LEAST_TURNS = 6
LONGEST_SHARE = 0.015
"""Calls that go on to `max_turns`."""
UNRATED = 0.1


def load(
    seed: int,
    dialogues: int = 400,
    max_turns: int = 300,
    assumptions: Assumptions = Assumptions(),  # noqa: B008 (frozen)
) -> Dataset:
    """Let people who were drawn from `seed` hold calls; each holds one to three.

    Args:
        seed: of everything; the same seed gives the same data in every process.
        dialogues: how many calls.
        max_turns: the longest, both sides' turns together.
        assumptions: coefficients of listeners.

    Raises:
        DataError: no dialogue asked for, or `max_turns` below the shortest call.
    """
    if dialogues < 1 or max_turns < LEAST_TURNS:
        raise DataError(
            f"simulated:{seed}: {dialogues} dialogues of at most {max_turns} turns",
            f"ask for at least 1 dialogue and {LEAST_TURNS} turns",
        )
    rng = random.Random(f"simulated {seed}")
    made: list[Dialogue] = []
    person = seed * 100_000
    while len(made) < dialogues:
        person += 1
        for call in range(min(rng.randint(1, 3), dialogues - len(made))):
            length = _length(rng, max_turns)
            made.append(_call(seed, person, call, length, rng.random() < UNRATED, assumptions))
    rng.shuffle(made)
    gain = assumptions.effects.gain
    return Dataset(
        f"simulated:{seed}",
        tuple(made),
        "simulated listener's face (misses, false smiles, absent faces)",
        notes=(
            f"rating = base mood + mean true contribution ({gain:g} x effect of the words) + noise;"
            " faces smile at praise and jokes for manners' sake; all assumed, none measured",
        ),
    )


def _length(rng: random.Random, most: int) -> int:
    if rng.random() < LONGEST_SHARE:
        return most
    drawn = round(math.exp(rng.gauss(math.log(MEDIAN_TURNS), SIGMA_TURNS)))
    return max(LEAST_TURNS, min(most, drawn))


def _call(
    seed: int, person: int, call: int, length: int, unrated: bool, assumptions: Assumptions
) -> Dialogue:
    """One call: the agent greets, then they take turns; truth and face on the agent's turns."""
    listener = Listener(persona(person, assumptions.ratings), call, assumptions)
    agent = ScriptedAgent(random.Random(f"agent {seed} {person} {call}"))
    turns: list[Utterance] = []
    for t in range(length):
        if t % 2 == 0:
            text = agent.speak(turns, listener)
            heard = listener.hear(turns, text)
            turns.append(Utterance("agent", text, True, heard.li, truth=heard.truth))
        else:
            text = listener.hello() if t == 1 else listener.answer(heard)
            turns.append(Utterance("listener", text, scored=False))
    rating = None if unrated else float(listener.rate())
    who = listener.persona.id
    return Dialogue(f"sim-{seed}-{person}-{call}", tuple(turns), rating, (who,))


@dataclass(slots=True)
class ScriptedAgent:
    """Speaks by its mixture of styles."""

    rng: random.Random
    acts: list[str] = field(init=False)
    weights: list[float] = field(init=False)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        shares = {
            style: self.rng.gammavariate(CONCENTRATION * COMMON.get(style, 1.0), 1)
            for style in STYLES
        }
        total = sum(shares.values())
        mixed: dict[str, float] = {}
        for style, share in shares.items():
            whole = sum(STYLES[style].values())
            for act, weight in STYLES[style].items():
                mixed[act] = mixed.get(act, 0.0) + share / total * weight / whole
        self.acts, self.weights = list(mixed), list(mixed.values())

    def speak(self, history: list[Utterance], listener: Listener) -> str:
        """The next utterance after `history`."""
        if not history:
            text = self._fill(say.GREET, listener)
        else:
            act = self.rng.choices(self.acts, self.weights)[0]
            text = self._act(act, history[-1].text, listener)
            if asks_back(history[-1].text) and act not in ("curt", "dismiss", "repeat"):
                text = f"{self._fill(say.OWN_DAY, listener)} {text}"
        self.said.append(text)
        return text

    def _act(self, act: str, heard: str, listener: Listener) -> str:
        news = news_of(heard) or (listener.told.news if listener.told else 0)
        match act:
            case "follow_up":
                return self._follow_up(listener)
            case "pronoun":
                return self._fill(say.PRONOUN_FOLLOW_UP, listener)
            case "question":
                return self._fill(say.QUESTION, listener)
            case "feel" | "misfit" | "feel_and_ask":
                feels = -news if act == "misfit" else news
                kinds = {1: say.GLAD, -1: say.SORRY, 0: say.KEEN}
                text = self._fill(kinds[feels], listener)
                return f"{text} {self._follow_up(listener)}" if act == "feel_and_ask" else text
            case "keen":
                return self._fill(say.KEEN, listener)
            case "self":
                return self._fill(say.SELF, listener)
            case "curt":
                return self._fill(say.CURT, listener)
            case "dismiss":
                return self._fill(say.DISMISSIVE, listener)
            case "flatter":
                text = self._fill(say.FLATTER, listener)
                asks = self.rng.random() < 0.25
                return f"{text} {self._follow_up(listener)}" if asks else text
            case "joke":
                return self._fill(say.JOKE, listener)
            case "filler":
                return self._fill(say.FILLER, listener)
            case "robot":
                return self._fill(say.ROBOT, listener)
            case "lecture":
                points = self.rng.sample(say.LECTURE[1:], self.rng.randint(3, 6))
                parts = [say.LECTURE[0], *points]
                return " ".join(self._fill((part,), listener) for part in parts)
            case "repeat":
                return self.rng.choice(self.said[-6:])
        raise ValueError(f"no act {act}")

    def _follow_up(self, listener: Listener) -> str:
        own = say.FOLLOW_UP[listener.told.kind] if listener.told else ()
        general = say.ANY_FOLLOW_UP if listener.told else say.QUESTION
        return self._fill(own if own and self.rng.random() < 0.5 else general, listener)

    def _fill(self, templates: tuple[str, ...], listener: Listener) -> str:
        told = listener.told
        subject = fill(told.subject, self.rng, listener.life) if told else "your day"
        slots = {"it": subject, "it_cap": subject[:1].upper() + subject[1:]}
        text = fill(self.rng.choice(templates), self.rng, slots)
        return sentence(agree(text, subject) if told and told.kind != "doing" else text)
