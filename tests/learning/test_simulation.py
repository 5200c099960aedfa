"""Simulated calls: in the store as real ones are, labelled by the shipped rule, audited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

import pytest

from agent.config import Labels
from agent.labels import label_session
from agent.records import Consent, EndedHow, Session
from agent.store import Store
from learning.data.store import of_session
from learning.dialogue import Utterance
from learning.errors import DataError
from learning.listener import Assumptions, Faces, Listener, Ratings, persona
from learning.simulation import audit, hold_calls, persona_of, truth_of

pytestmark = pytest.mark.unit

RULE = Labels()
PEOPLE = [persona(i) for i in range(8)]
SEEN = Assumptions(faces=Faces(without_camera=0.0, run=1.0))


class Attentive:
    """Asks about the longest word it just heard."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.seeds: list[int] = []

    def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
        self.batches.append(len(histories))
        self.seeds.append(seed)
        assert all(h[-1].speaker == "listener" for h in histories)
        words = [max(h[-1].text.strip(".?!").split(), key=len) for h in histories]
        n = len(histories[0]) // 2
        kinds = ("How did {} begin?", "What do you like about {}?", "Why is {} on your mind?")
        return [f"Ah. {kinds[n % 3].format(word.strip('.,?!'))}" for word in words]


class Cold:
    def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
        n = len(histories[0])
        return [("Whatever.", "Who cares.", "So what.")[n % 3] for _ in histories]


class Flatterer:
    def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
        n = len(histories[0]) // 2
        praise = ("kind", "clever", "funny", "wise", "charming", "gifted", "special", "lovely")
        return [f"You are so {praise[n % 8]}." for _ in histories]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('store')}/s.sqlite3") as opened:
        yield opened


def held(
    store: Store, writer: object, turns: int = 4, assumptions: Assumptions = SEEN
) -> list[Session]:
    ids = hold_calls(
        store,
        writer,  # type: ignore[arg-type]
        PEOPLE,
        turns,
        seed=3,
        policy_id="p-1",
        labels_config=RULE,
        config_digest="abc",
        assumptions=assumptions,
    )
    return [store.get(i) for i in ids]


def test_a_call_is_on_record_like_a_real_one(store: Store) -> None:
    sessions = held(store, Attentive())
    assert {s.id for s in sessions} <= {s.id for s in store.iter_sessions()}
    for session, who in zip(sessions, PEOPLE, strict=True):
        assert session.source == "simulated" and session.consent is Consent.LEARN
        assert session.ended_how is EndedHow.HUNG_UP
        assert session.policy_id == "p-1" and session.config_digest == "abc"
        assert session.overall_affect_source == "simulated"
        assert persona_of(session) == who
        kinds = [turn.kind for turn in session.turns]
        assert kinds == ["greeting", "utterance"] + ["reply", "utterance"] * 3 + ["reply"]
        assert [t.policy_id for t in session.turns if t.kind == "reply"] == ["p-1"] * 4
        times = [(t.start_s, t.end_s) for t in session.turns]
        assert all(a[1] < b[0] for a, b in zip(times, times[1:], strict=False))
        assert session.ended_at is not None
        length_s = (session.ended_at - session.started_at).total_seconds()
        assert times[-1][1] < length_s < times[-1][1] + 6


def test_speech_takes_the_time_that_words_take(store: Store) -> None:
    turns = [turn for session in held(store, Attentive()) for turn in session.turns]
    for turn in turns:
        words = len(turn.text.split())
        assert turn.end_s - turn.start_s == pytest.approx(max(0.8, words / 2.5), abs=0.01)


def test_windows_slide_over_the_call(store: Store) -> None:
    for session in held(store, Cold()):
        starts = [w.start_s for w in session.windows]
        assert starts == [float(i) for i in range(len(starts))]
        assert all(w.end_s - w.start_s == 2.0 for w in session.windows)
        assert all(w.face_found == (w.positive is not None) for w in session.windows)


def replayed(session: Session, seed: int, assumptions: Assumptions) -> list[int | None]:
    """The faces of the same listener at the same words."""
    listener = Listener(persona_of(session), seed, assumptions)
    history = [
        Utterance("agent" if t.speaker == "agent" else "listener", t.text) for t in session.turns
    ]
    return [
        listener.hear(history[:i], turn.text).li
        for i, turn in enumerate(session.turns)
        if turn.kind == "reply"
    ]


@pytest.mark.parametrize("writer", [Attentive(), Cold(), Flatterer()])
@pytest.mark.parametrize("assumptions", [SEEN, Assumptions()])
def test_the_shipped_rule_reads_the_listeners_face(
    store: Store, writer: object, assumptions: Assumptions
) -> None:
    labels = []
    for session in held(store, writer, 6, assumptions):
        stored = [turn.li for turn in session.turns if turn.kind == "reply"]
        assert stored == replayed(session, 3, assumptions)
        assert label_session(session, RULE).turns == session.turns
        labels += stored
    assert {0, 1} <= set(labels)


def test_a_face_that_was_never_seen_leaves_no_label(store: Store) -> None:
    for session in held(store, Cold(), 2, Assumptions(faces=Faces(without_camera=1.0))):
        replies = [turn for turn in session.turns if turn.kind == "reply"]
        assert [turn.li for turn in replies] == [None, None]
        assert all(turn.li_coverage == 0 for turn in replies)


def test_learning_reads_the_calls_back(store: Store) -> None:
    from agent import config as configs

    config = configs.load("cpu")
    for session in held(store, Attentive()):
        dialogue = of_session(session, config)
        assert len(dialogue.scored) == 4
        assert dialogue.rating == session.overall_affect
        assert [dialogue.turns[i].li for i in dialogue.scored] == [
            turn.li for turn in session.turns if turn.kind == "reply"
        ]


def test_truth_follows_from_the_record(store: Store) -> None:
    quiet = Assumptions(faces=SEEN.faces, ratings=Ratings(noise_sd=0.0))
    for writer in (Attentive(), Cold()):
        sessions = held(store, writer, 5, quiet)
        for session, truths in zip(sessions, truth_of(sessions, quiet), strict=True):
            assert len(truths) == 5
            expected = round(min(100, max(0, persona_of(session).base + mean(truths))))
            assert session.overall_affect == expected


def test_one_batch_a_turn_and_the_same_calls_again(store: Store) -> None:
    first, second = Attentive(), Attentive()
    texts = [[t.text for t in s.turns] for s in held(store, first)]
    again = [[t.text for t in s.turns] for s in held(store, second)]
    assert texts == again
    assert first.batches == [len(PEOPLE)] * 4
    assert first.seeds == second.seeds and len(set(first.seeds)) == 4


def test_the_audit_tells_policies_apart(store: Store) -> None:
    kind, cold = audit(held(store, Attentive(), 8)), audit(held(store, Cold(), 8))
    flattering = audit(held(store, Flatterer(), 8))
    assert kind["sessions"] == 8 and kind["replies"] == 64
    assert kind["rating"]["low"] > cold["rating"]["high"]
    assert kind["true_effect"]["value"] > 0 > cold["true_effect"]["value"]
    assert kind["questions"]["value"] == 1 and cold["questions"]["value"] == 0
    assert flattering["flattery"]["value"] == 1 and kind["flattery"]["value"] == 0
    assert cold["repetition"]["value"] < 1 and cold["words"]["value"] < 3
    assert kind["distinct_2"]["value"] > cold["distinct_2"]["value"]
    # the face smiles at praise although the rating falls: learning from faces alone is fooled
    assert flattering["true_effect"]["value"] < 0
    assert flattering["positive_face"]["value"] > cold["positive_face"]["value"] + 0.1
    for measured in kind.values():
        if isinstance(measured, dict):
            assert measured["low"] <= measured["value"] <= measured["high"]


def test_what_was_not_seen_is_not_measured(store: Store) -> None:
    sessions = held(store, Cold(), 2, Assumptions(faces=Faces(without_camera=1.0)))
    assert audit(sessions)["positive_face"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
    }
    one = audit(sessions[:1])["rating"]
    assert one["value"] == sessions[0].overall_affect and one["low"] is None


def test_an_empty_reply_is_heard_as_one(store: Store) -> None:
    class Mute:
        def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
            return ["" for _ in histories]

    sessions = held(store, Mute(), 2)
    assert all(truth < 0 for truths in truth_of(sessions) for truth in truths)


def test_mistakes_are_named(store: Store) -> None:
    class Short:
        def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
            return ["Hello."]

    with pytest.raises(DataError, match="1 replies to 8 histories"):
        held(store, Short())
    with pytest.raises(DataError, match="at least one of each"):
        hold_calls(store, Cold(), [], 3, 1, "p", RULE)
    with pytest.raises(DataError, match="no simulated session"):
        audit([])
    with pytest.raises(DataError, match="not held by a simulated person"):
        truth_of([Session(consent=Consent.LEARN, comment="simulated persona 3")])
