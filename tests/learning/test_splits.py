import pytest

from learning.splits import split
from tests.learning.samples import dialogue

pytestmark = pytest.mark.unit


def test_the_parts_are_disjoint_whole_and_seeded() -> None:
    data = [dialogue(f"d{i}") for i in range(40)]
    first, again, other = split(data, 0), split(data, 0), split(data, 1)
    assert first == again and first != other
    every = [*first.train, *first.validation, *first.test]
    assert sorted(every) == sorted(d.id for d in data)
    assert (len(first.validation), len(first.test)) == (6, 8)


def test_both_sides_of_one_conversation_stay_together() -> None:
    data = [dialogue(f"c{i}#{side}") for i in range(30) for side in "ab"]
    parts = split(data, 3)
    for part in (parts.train, parts.validation, parts.test):
        conversations = [i.partition("#")[0] for i in part]
        assert all(conversations.count(c) == 2 for c in conversations)


def test_people_who_met_stay_together() -> None:
    pairs = [(f"p{i}", f"p{i + 1 if i % 3 else i}") for i in range(60)]
    data = [dialogue(f"d{i}", people=pair) for i, pair in enumerate(pairs)]
    parts = split(data, 0, by="person")
    assert not parts.left_out
    where = {i: n for n in ("train", "validation", "test") for i in getattr(parts, n)}
    for a in data:
        for b in data:
            if set(a.people) & set(b.people):
                assert where[a.id] == where[b.id]
    assert parts.test and parts.validation


def test_where_everybody_met_people_are_dealt_and_what_straddles_is_left_out() -> None:
    data = [dialogue(f"d{i}-{j}", people=(f"p{i}", f"p{j}")) for i in range(14) for j in range(i)]
    parts = split(data, 0, by="person", validation=0.3, test=0.3)
    people = {
        name: {p for d in parts.pick(data, name) for p in d.people}
        for name in ("train", "validation", "test")
    }
    assert parts.left_out and parts.test and parts.train
    assert not people["train"] & people["test"]
    assert not people["train"] & people["validation"]
    assert not people["validation"] & people["test"]
