from pathlib import Path

import pytest

from agent import config as configs
from agent.config import Config
from agent.errors import StoreError
from agent.records import Consent, Session
from agent.store import Store
from learning.data import load
from learning.data.store import load_one
from learning.errors import DataError
from tests.agent.session_samples import ended, turn, window

pytestmark = pytest.mark.unit


def config_at(tmp_path: Path, *more: str) -> Config:
    return configs.load("cpu", [f'store.url="sqlite:///{tmp_path}/s.sqlite3"', *more])


def keep(config: Config, *sessions: Session) -> None:
    with Store.open(config.store.url) as store:
        for session in sessions:
            store.insert(session)


def test_only_consented_ended_not_excluded_sessions_of_people_are_read(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    keep(
        config,
        ended("learn", 0, overall_affect=70),
        ended("keep", 1, consent=Consent.KEEP),
        ended("excluded", 2, excluded=True),
        ended("robot", 3, source="simulated"),
        ended("unrated", 4),
    )
    data = load("store", config)
    assert [(d.id, d.rating) for d in data.dialogues] == [("learn", 70.0), ("unrated", None)]
    assert [d.id for d in load("store:simulated", config).dialogues] == ["robot"]


def test_replies_are_scored_and_what_the_program_says_is_history(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    turns = [
        turn(0, "agent", kind="greeting", text="Hello."),
        turn(1, "user", text="Hi there."),
        turn(2, "agent", text="heard words", generated_text="heard words and more"),
        turn(3, "agent", kind="goodbye", text="Bye."),
        turn(4, "agent", text=" "),
    ]
    keep(config, ended("s", turns=turns, windows=[window(i, i > 4) for i in range(8)]))
    dialogue = load("store", config).dialogues[0]
    assert [t.text for t in dialogue.turns] == ["Hello.", "Hi there.", "heard words", "Bye."]
    assert dialogue.scored == (2,)
    assert [t.li is not None for t in dialogue.turns] == [False, False, True, False]
    assert all(t.sentiment is not None for t in dialogue.turns)


def test_labels_are_computed_anew_from_the_windows_under_the_rule_of_now(tmp_path: Path) -> None:
    faces = [window(i, positive=i == 2) for i in range(1, 7)]
    turns = [turn(0), turn(1, "agent"), turn(2)]
    strict = config_at(tmp_path)
    keep(strict, ended("s", turns=turns, windows=faces))
    any_smile = config_at(tmp_path, 'labels.rule="any"')
    assert load("store", strict).dialogues[0].turns[1].li == 0
    assert load("store", any_smile).dialogues[0].turns[1].li == 1


def test_a_label_that_a_person_corrected_stays(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    turns = [turn(0), turn(1, "agent", li=1, li_rule="person: ada"), turn(2)]
    keep(config, ended("s", turns=turns, windows=[window(2, False), window(3, False)]))
    assert load("store", config).dialogues[0].turns[1].li == 1


def test_an_empty_store_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="store: no dialogues to learn from"):
        load("store", config_at(tmp_path))


@pytest.mark.parametrize("spec", ["nowhere", "simulated:x", "candor:", "chitchat:most", "store:1"])
def test_an_unknown_source_names_the_ones_there_are(spec: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="chitchat, simulated:SEED"):
        load(spec, config_at(tmp_path))


def test_one_session_is_read_by_its_id_where_learning_may(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    ways = {
        "keep": {"consent": "keep"},
        "excluded": {"excluded": True, "excluded_reason": "a test"},
        "silent": {"turns": [turn(0)]},
    }
    keep(config, ended("open"), *(ended(name, **more) for name, more in ways.items()))
    with Store.open(config.store.url) as store:
        store.open_session(ended("live", ended_at=None, ended_how=None))
    assert load_one(config, "op").id == "open"
    assert load_one(config, "op").scored == load("store", config).dialogues[0].scored
    reasons = {
        "keep": "did not give it to learning",
        "excluded": r"excluded from learning \(a test\)",
        "live": "still going on",
        "silent": "no reply of the policy",
    }
    for name, why in reasons.items():
        with pytest.raises(DataError, match=f"session {name}: .*{why}"):
            load_one(config, name)
    with pytest.raises(StoreError, match="no session 'x'"):
        load_one(config, "x")
