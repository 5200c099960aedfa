"""Simulated dialogues: the same everywhere, plausible in numbers, true to their own account."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from learning.data import simulated
from learning.dialogue import Dataset, Utterance, summarise
from learning.errors import DataError
from learning.listener import Assumptions, Ratings, persona, read, truth

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulated.load(1, dialogues=150)


def scored(data: Dataset) -> list[Utterance]:
    return [d.turns[i] for d in data.dialogues for i in d.scored]


def test_one_seed_one_data_set_in_every_process() -> None:
    code = "from learning.data import simulated as s; print(s.load(4, 6).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert digests == {simulated.load(4, 6).digest}
    assert simulated.load(5, 6).digest not in digests


def test_truth_is_recomputed_from_text_alone(data: Dataset) -> None:
    for dialogue in data.dialogues[:20]:
        who = persona(int(dialogue.people[0].removeprefix("persona-")))
        for i in dialogue.scored:
            turn = dialogue.turns[i]
            assert truth(dialogue.turns[:i], turn.text, who) == turn.truth


def test_ratings_are_base_and_mean_truth_within_the_noise(data: Dataset) -> None:
    errors = []
    for dialogue in data.dialogues:
        if dialogue.rating is None or not 15 < dialogue.rating < 85:
            continue
        who = persona(int(dialogue.people[0].removeprefix("persona-")))
        truths = [dialogue.turns[i].truth or 0.0 for i in dialogue.scored]
        errors.append(dialogue.rating - who.base - np.mean(truths))
    assert abs(np.mean(errors)) < 1.0
    assert np.std(errors) == pytest.approx(Ratings().noise_sd, rel=0.2)


def test_without_noise_the_rating_is_the_account_itself() -> None:
    quiet = Assumptions(ratings=Ratings(noise_sd=0.0))
    for dialogue in simulated.load(2, 10, assumptions=quiet).dialogues:
        if dialogue.rating is not None:
            who = persona(int(dialogue.people[0].removeprefix("persona-")))
            mean = np.mean([dialogue.turns[i].truth or 0.0 for i in dialogue.scored])
            assert dialogue.rating == np.clip(round(who.base + mean), 0, 100)


def test_labels_and_truth_stand_on_the_agents_turns_only(data: Dataset) -> None:
    for dialogue in data.dialogues:
        speakers = [turn.speaker for turn in dialogue.turns]
        assert speakers == ["agent", "listener"] * (len(speakers) // 2) + ["agent"] * (
            len(speakers) % 2
        )
        for turn in dialogue.turns:
            agent = turn.speaker == "agent"
            assert turn.scored == agent == (turn.truth is not None)
            assert agent or turn.li is None
            assert turn.text.strip() and not set("{}[]|") & set(turn.text)


def test_counts_are_plausible(data: Dataset) -> None:
    summary = summarise(data)
    assert 0.82 < summary.rated / summary.dialogues < 0.97
    assert 0.6 < summary.labelled_turns / summary.scored_turns < 0.85
    assert 0.2 < summary.positive_turns / summary.labelled_turns < 0.6
    assert summary.rating_sd is not None and 10 < summary.rating_sd < 22
    assert summary.rating_mean is not None and 40 < summary.rating_mean < 70
    lengths = [len(d.turns) for d in data.dialogues]
    assert min(lengths) >= 6 and max(lengths) == 300
    assert 25 < np.median(lengths) < 50
    faceless = np.mean([all(t.li is None for t in d.turns) for d in data.dialogues])
    assert 0.04 < faceless < 0.2


def test_people_hold_one_to_three_calls_under_ids_of_their_own(data: Dataset) -> None:
    calls = [d.people[0] for d in data.dialogues]
    assert {calls.count(person) for person in calls} <= {1, 2, 3}
    assert len({d.id for d in data.dialogues}) == len(data.dialogues)
    others = {d.people[0] for d in simulated.load(2, 50).dialogues}
    assert not others & set(calls)


def test_faces_tell_something_of_the_truth_and_not_all(data: Dataset) -> None:
    seen = [t for t in scored(data) if t.li is not None]
    worth = np.array([t.truth for t in seen], float)
    smile = np.array([t.li for t in seen], float)
    good = worth > np.median(worth)
    auc = 0.5 + (smile[good].mean() - smile[~good].mean()) / 2  # of a binary score
    assert 0.57 < auc < 0.75


def test_ratings_follow_the_turns_and_more(data: Dataset) -> None:
    rated = [d for d in data.dialogues if d.rating is not None]
    means = [np.mean([d.turns[i].truth or 0.0 for i in d.scored]) for d in rated]
    r = np.corrcoef(means, [d.rating or 0.0 for d in rated])[0, 1]
    assert 0.4 < r < 0.9


def test_wording_varies(data: Dataset) -> None:
    long = [t.text for t in scored(data) if len(t.text.split()) >= 8]
    heard = [t.text for d in data.dialogues for t in d.turns if len(t.text.split()) >= 8]
    assert len(set(long)) > 0.5 * len(long)
    assert len(set(heard)) > 0.6 * len(heard)


def test_attentive_turns_pick_up_words_of_the_listener(data: Dataset) -> None:
    best = [
        (d.turns[i - 1].text, d.turns[i].text)
        for d in data.dialogues
        for i in d.scored
        if i and (d.turns[i].truth or 0.0) > 25
    ]
    assert len(best) > 50
    assert np.mean(["?" in said for _, said in best]) > 0.8
    takes_up = [read([Utterance("listener", heard)], said).topic > 0 for heard, said in best]
    assert np.mean(takes_up) > 0.5


def test_the_longest_call_is_what_was_asked_for() -> None:
    lengths = [len(d.turns) for d in simulated.load(3, 60, max_turns=20).dialogues]
    assert max(lengths) == 20
    assert min(lengths) >= 6


@pytest.mark.parametrize(("dialogues", "turns"), [(0, 300), (5, 3)])
def test_too_little_is_refused_in_one_line(dialogues: int, turns: int) -> None:
    with pytest.raises(DataError, match="simulated:1: .* ask for at least"):
        simulated.load(1, dialogues, turns)
