"""The simulated listener: what words do to them, what the face shows of it, and what they rate."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from learning.dialogue import Utterance
from learning.listener import (
    Assumptions,
    Effects,
    Faces,
    Listener,
    Persona,
    Ratings,
    persona,
    read,
    truth,
)
from learning.listener.face import Face, smile_probability
from learning.listener.phrases import agree, fill
from learning.listener.reading import news_of
from learning.listener.topics import TOPICS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
HELLO = Utterance("agent", "Hi, how are you today?")
SAD = "My sister is back in hospital since Monday, I'm so worried."
HAPPY = "We won the football match on Saturday, I scored twice!"
PLAIN = "I planted tomatoes on the balcony."


def after(*said: str) -> list[Utterance]:
    """A history: the greeting, then the listener and the agent in turns."""
    sides = ("listener", "agent")
    return [HELLO, *(Utterance(sides[i % 2], text) for i, text in enumerate(said))]  # type: ignore[arg-type]


def effect(history: list[Utterance], text: str) -> float:
    return Effects().of(read(history, text))


def parts(history: list[Utterance], text: str) -> dict[str, float]:
    return Effects().parts(read(history, text))


@pytest.mark.parametrize(
    ("heard", "good", "middling", "bad"),
    [
        (
            SAD,
            "Oh no, I'm sorry. How is your sister doing now?",
            "I see, that's life.",
            "Get over it.",
        ),
        (
            HAPPY,
            "Congratulations! How did you score twice?",
            "Do you like tea?",
            "Who cares about football.",
        ),
        (
            PLAIN,
            "How did you get the tomatoes to grow on a balcony?",
            "Fair enough, these things happen.",
            "I went to my shop, I bought my shoes and I liked my day.",
        ),
        (
            PLAIN,
            "What made you choose tomatoes?",
            "What did you do then?",
            "As an AI language model, I do not have feelings.",
        ),
    ],
)
def test_attention_is_worth_more_than_filler_and_filler_more_than_coldness(
    heard: str, good: str, middling: str, bad: str
) -> None:
    history = after(heard)
    assert effect(history, good) > 5
    assert effect(history, good) > effect(history, middling) > effect(history, bad)
    assert effect(history, bad) < -2


@pytest.mark.parametrize(
    ("heard", "text", "part", "sign"),
    [
        (SAD, "That must be so hard.", "fitting", 1),
        (SAD, "Oh no, that sounds awful.", "fitting", 1),
        (HAPPY, "That's wonderful, well done!", "fitting", 1),
        (SAD, "Wonderful, congratulations!", "misfit", -1),
        (HAPPY, "I'm so sorry, that sounds hard.", "misfit", -1),
        (PLAIN, "Tomatoes on the balcony, lovely.", "topic", 1),
        (PLAIN, "Okay.", "curt", -1),
        (PLAIN, "", "curt", -1),
        (PLAIN, "Whatever, not my problem.", "dismissive", -1),
        (PLAIN, "How can I assist you today?", "robot", -1),
        (PLAIN, "I see, that makes sense.", "filler", -1),
        (PLAIN, " ".join(f"word{i}" for i in range(90)), "long", -1),
        (PLAIN, "very nice very nice very nice very nice very nice", "repeat", -1),
        (PLAIN, "I planted tomatoes on the balcony.", "repeat", -1),
    ],
)
def test_each_part_shows_in_words_that_mean_it(heard: str, text: str, part: str, sign: int) -> None:
    assert sign * parts(after(heard), text).get(part, 0.0) > 0


def test_what_is_not_meant_is_not_read() -> None:
    assert "self_only" not in parts(
        after(SAD), "I'm so sorry, I can imagine, I hope it gets better."
    )
    assert "self_only" not in parts(
        after("I love tea. What about you?"), "I like coffee, I drink mine black and I love my cup."
    )
    assert "dismissive" not in parts(after(PLAIN), "So what did you do then?")
    assert "praise" not in parts(after(HAPPY), "That is great news, what a match!")
    assert read(after(PLAIN), "Is it cold where you are?").follow_up == 0
    assert read(after(PLAIN), "Why did the chicken cross the road? Haha!").question is False


def test_praise_pleases_once() -> None:
    first = "You are such a wonderful person."
    again = "You're so clever and kind."
    once = after(PLAIN, first, "Oh, thank you.")
    twice = [*once, Utterance("agent", again), Utterance("listener", "Uh, thanks again.")]
    assert parts(after(PLAIN), first)["praise"] > 0
    assert 0 > parts(once, again)["praise"] > parts(twice, "You must be very talented.")["praise"]
    assert smile_probability(WHO, Faces(), read(once, again), effect(once, again)) > 0.5


def test_saying_it_again_costs_even_when_it_was_good() -> None:
    asked = "How did you get the tomatoes to grow on a balcony?"
    history = after(PLAIN, asked, "They get a lot of sun there.")
    assert effect(history, asked) < -4 < 4 < effect(after(PLAIN), asked)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("How did the tomatoes do?", 1),
        ("Ah, tomatoes! How did that begin?", 1),
        ("How did that begin?", 0.5),
        ("Ah, tomatoes. What is new?", 0.5),
        ("What is new?", 0),
        ("Do you like tomatoes?", 0),
    ],
)
def test_a_follow_up_takes_up_what_was_told(text: str, share: float) -> None:
    assert read(after(PLAIN), text).follow_up == share


def test_joy_and_sympathy_at_once_are_no_hedge() -> None:
    both = "I'm so glad to hear that, I'm so sorry."
    assert "fitting" in parts(after(HAPPY), both)
    assert "misfit" in parts(after(SAD), both)


def test_each_word_beyond_the_limit_costs_and_effects_saturate() -> None:
    long = [" ".join(f"w{i}" for i in range(n)) for n in (45, 60, 80)]
    at_limit, longer, longest = (effect(after(PLAIN), text) for text in long)
    assert at_limit == 0 > longer > longest
    assert longest - longer == pytest.approx(20 * Effects().per_word)
    assert effect(after(PLAIN), " ".join(f"w{i}" for i in range(500))) == -Effects().limit


def test_truth_is_in_points_of_the_persons_rating() -> None:
    history, text = after(SAD), "Oh no. How is your sister now?"
    plain = truth(history, text)
    assert plain == Effects().gain * effect(history, text)
    assert truth(history, text, WHO) == pytest.approx(WHO.sensitivity * plain)


def test_coefficients_can_be_changed_and_nonsense_is_refused() -> None:
    mute = Effects(follow_up=0.0, question=0.0, topic=0.0)
    assert mute.of(read(after(PLAIN), "What made you choose tomatoes?")) == 0
    with pytest.raises(ValueError, match="not effects"):
        Effects(gain=0.0)
    with pytest.raises(ValueError, match="negative"):
        Assumptions.of_difficulty(-1)


WHO = persona(3)


def test_persons_differ_and_come_back() -> None:
    people = [persona(i) for i in range(200)]
    assert people[7] == persona(7)
    bases = [p.base for p in people]
    spread = (sum((b - mean(bases)) ** 2 for b in bases) / 200) ** 0.5
    assert spread == pytest.approx(Ratings().base_sd, rel=0.2)
    assert len({p.topics for p in people}) > 190
    assert len({(p.life["dog"], p.life["city"], p.life["kin"]) for p in people}) > 100


def test_the_same_in_every_process() -> None:
    code = (
        "from learning.listener import *\n"
        "l = Listener(persona(5), 2)\n"
        "print(persona(5)); print(l.hello())\n"
        "for i in range(5): print(l.answer(l.hear([], f'What about garden {i}?')))\n"
        "print(l.rate())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin"},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_stories_tell_what_they_mean_to_tell() -> None:
    facts = [fact for facts in TOPICS.values() for fact in facts]
    told = [fill(f.text, random.Random(i), WHO.life) for i, f in enumerate(facts)]
    agree = [news_of(text) == fact.news for text, fact in zip(told, facts, strict=True)]
    assert mean(agree) > 0.95
    assert len(TOPICS) >= 15


@pytest.mark.parametrize(
    ("text", "subject", "right"),
    [
        ("How is the roses now?", "the roses", "How are the roses now?"),
        ("The roses sounds great.", "the roses", "The roses sound great."),
        ("Why does the roses matter?", "the roses", "Why do the roses matter?"),
        ("How is the bus now?", "the bus", "How is the bus now?"),
        ("Otis sounds great.", "Otis", "Otis sounds great."),
    ],
)
def test_verbs_agree_with_what_they_are_about(text: str, subject: str, right: str) -> None:
    assert agree(text, subject) == right


def test_templates_are_filled() -> None:
    rng = random.Random(1)
    filled = {fill("A [big|{what}|] dog[, a old one|].", rng, {"what": "red"}) for _ in range(99)}
    heads, tails = ("A big dog", "A red dog", "A dog"), (".", ", an old one.")
    assert filled == {head + tail for head in heads for tail in tails}
    with pytest.raises(KeyError):
        fill("{unknown}", rng, {})


def test_news_is_turned_by_a_negation() -> None:
    assert (news_of("It was wonderful."), news_of("It was not wonderful.")) == (1, -1)
    assert news_of("I have a table.") == 0


# -- talk ----------------------------------------------------------------------------------------


def words_after(text: str) -> float:
    """Mean length of the answers of many people to an utterance after a story."""
    lengths = []
    for i in range(150):
        listener = Listener(persona(i), 1)
        history = [HELLO, Utterance("listener", listener.hello() + " " + PLAIN)]
        answer = listener.answer(listener.hear(history, text))
        lengths.append(len(answer.split()))
    return mean(lengths)


def test_open_questions_are_answered_at_length_and_coldness_is_not() -> None:
    asked = words_after("What made you choose tomatoes for the balcony?")
    filler = words_after("I see, that makes sense to me.")
    cold = words_after("Whatever, not my problem.")
    assert asked > 1.3 * filler > filler > cold > 1


def test_answers_are_about_the_listeners_own_life() -> None:
    listener = Listener(WHO, 1)
    said = " ".join(
        listener.answer(listener.hear(after(PLAIN), f"What else happened, part {i}?"))
        for i in range(150)
    )
    assert WHO.life["dog"] in said
    assert WHO.life["city"] in said
    assert "{" not in said and "[" not in said and "|" not in said


# -- face ----------------------------------------------------------------------------------------


def faces_of(text: str, faces: Faces = Faces(), people: int = 300) -> list[int | None]:  # noqa: B008
    assumptions = Assumptions(faces=faces)
    return [Listener(persona(i), 1, assumptions).hear(after(PLAIN), text).li for i in range(people)]


def smiles(text: str, faces: Faces = Faces()) -> float:  # noqa: B008
    return mean(li for li in faces_of(text, faces) if li is not None)


def test_smiles_follow_effects_noisily() -> None:
    good = smiles("How lovely! What made you choose tomatoes for the balcony?")
    bad = smiles("Whatever, not my problem.")
    assert 0.4 < good < 0.95
    assert 0.02 < bad < 0.3


def test_faces_lie_for_manners_sake() -> None:
    joke = "Why did the tomato blush? Because it saw the salad dressing, haha!"
    nothing = "The bus stops there."
    assert smiles(joke) > smiles(nothing) + 0.15
    assert smiles(joke, Faces(polite=0.0)) < smiles(joke) - 0.1


def test_nobody_smiles_much_at_comfort() -> None:
    joy, comfort = read(after(HAPPY), "That's wonderful!"), read(after(SAD), "That sounds hard.")
    at_joy, at_comfort = (smile_probability(WHO, Faces(), r, 5.0) for r in (joy, comfort))
    assert at_comfort < at_joy
    assert smile_probability(WHO, Faces(trouble=0.0), comfort, 5.0) == at_joy


def test_faces_get_lost_in_runs() -> None:
    who = next(p for p in map(persona, range(100)) if 0.7 < p.visibility < 0.8)
    face = Face(who, Faces(run=4.0, without_camera=0.0), random.Random(1))
    reading = read(after(PLAIN), "The bus stops there.")
    seen = [face.take(reading, 0.0) is not None for _ in range(6000)]
    runs = sum(a and not b for a, b in zip(seen, seen[1:], strict=False))
    assert mean(seen) == pytest.approx(who.visibility, abs=0.04)
    assert seen.count(False) / runs == pytest.approx(4.0, rel=0.15)


def test_some_calls_have_no_camera() -> None:
    none = [li is None for li in faces_of("The bus stops there.", Faces(without_camera=1.0))]
    assert all(none)


# -- rating --------------------------------------------------------------------------------------


def rated(who: Persona, texts: list[str], ratings: Ratings, seed: int = 1) -> tuple[int, float]:
    listener = Listener(who, seed, Assumptions(ratings=ratings))
    truths = [listener.hear(after(PLAIN), text).truth for text in texts]
    return listener.rate(), mean(truths)


def test_the_rating_is_base_and_mean_truth_and_noise() -> None:
    texts = ["How did you plant the tomatoes?", "Okay.", "I see, that makes sense."]
    still = Ratings(noise_sd=0.0)
    rating, worth = rated(WHO, texts, still)
    assert rating == round(WHO.base + worth)
    noisy = [rated(WHO, texts, Ratings(noise_sd=5.0), seed)[0] for seed in range(400)]
    assert mean(noisy) == pytest.approx(WHO.base + worth, abs=1.0)
    assert len(set(noisy)) > 10


def test_ratings_stay_on_their_scale() -> None:
    assert rated(WHO, ["Whatever, who cares."], Ratings(noise_sd=300.0), 1)[0] in (0, 100)
    with pytest.raises(ValueError, match="nothing to rate"):
        Listener(WHO, 1).rate()


def test_difficulty_one_is_the_default_and_zero_lets_faces_speak() -> None:
    assert Assumptions.of_difficulty(1) == Assumptions()
    easy, hard = Assumptions.of_difficulty(0), Assumptions.of_difficulty(2)
    assert easy.ratings.noise_sd == 0 < hard.ratings.noise_sd
    assert easy.faces.slope > Faces().slope > hard.faces.slope
    assert easy.effects == hard.effects
