"""A store that an older program wrote: everything is still there, and what is new is filled in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from agent import corrections, schema, store_engine
from agent.records import AffectWindow, Consent, EndedHow, Latency, Session, Turn
from agent.store import Filter, Store

pytestmark = pytest.mark.unit

HEADS = """
INSERT INTO sessions (id, schema_version, started_at, ended_at, ended_how, consent, source,
  overall_affect, overall_affect_at, overall_affect_source, comment, excluded, excluded_reason,
  policy_id, config_digest, program_version, owner)
VALUES
  ('full', 1, '2026-11-01 10:00:00.500000{z}', '2026-11-01 10:01:00.000000{z}', 'hung_up', 'learn',
   'browser', 62.5, '2026-11-01 10:02:00.000000{z}', 'page', 'it''s "fine" 世界', TRUE, 'a test',
   'lora-7', 'abc', '0.1.0', NULL),
  ('empty', 1, '2026-11-02 10:00:00.000000{z}', NULL, NULL, 'keep', 'talk',
   NULL, NULL, NULL, NULL, FALSE, NULL, NULL, NULL, NULL, NULL),
  ('live', 1, '2026-11-03 10:00:00.000000{z}', NULL, NULL, 'keep', 'browser',
   NULL, NULL, NULL, NULL, FALSE, NULL, NULL, NULL, NULL, 'elsewhere/boot|1|1')
"""
TURNS = """
INSERT INTO turns (session_id, "index", speaker, start_s, end_s, text, generated_text, interrupted,
  kind, policy_id, engines, latency, li, li_coverage, li_windows, li_rule, sentiment, prosody)
VALUES
  ('full', 0, 'agent', 0, 1, 'Hello', 'Hello!', TRUE, 'greeting', NULL, '{{}}',
   NULL, NULL, NULL, '[]', NULL, NULL, NULL),
  ('full', 1, 'user', 1, 2.5, 'Grüße', NULL, FALSE, 'utterance', NULL, '{{"recognizer": "w"}}',
   NULL, NULL, NULL, '[]', NULL, 0.25, '{{"f0_hz": 180.5}}'),
  ('full', 2, 'agent', 3, 4, 'Yes', 'Yes', FALSE, 'reply', 'lora-7', '{{}}',
   '{{"first_token_ms": 80.5}}', 1, 0.5, '[0, 2]', 'majority', NULL, NULL),
  ('live', 0, 'user', 0, 7.5, 'Soup', NULL, FALSE, 'utterance', NULL, '{{}}',
   NULL, NULL, NULL, '[]', NULL, NULL, NULL)
"""
WINDOWS = """
INSERT INTO windows (session_id, "index", start_s, end_s, face_found, coverage, probabilities,
  valence, positive, classifier)
VALUES
  ('full', 0, 0, 2, TRUE, 1, '{{"happiness": 0.9}}', 0.8, TRUE, 'c'),
  ('full', 1, 1, 3, TRUE, 1, '{{"happiness": 0.1}}', -0.2, FALSE, 'c'),
  ('full', 2, 9, 11, FALSE, 0, NULL, NULL, NULL, 'c')
"""
TALLY = "INSERT INTO tally (day, what, n) VALUES ('2026-11-01', 'talk_only', 3)"

FULL = Session(
    id="full",
    started_at=datetime(2026, 11, 1, 10, 0, 0, 500_000, UTC),
    ended_at=datetime(2026, 11, 1, 10, 1, tzinfo=UTC),
    ended_how=EndedHow.HUNG_UP,
    consent=Consent.LEARN,
    overall_affect=62.5,
    overall_affect_at=datetime(2026, 11, 1, 10, 2, tzinfo=UTC),
    overall_affect_source="page",
    comment='it\'s "fine" 世界',
    excluded=True,
    excluded_reason="a test",
    policy_id="lora-7",
    config_digest="abc",
    program_version="0.1.0",
    turns=[
        Turn(index=0, speaker="agent", start_s=0, end_s=1, text="Hello", generated_text="Hello!",
             interrupted=True, kind="greeting"),
        Turn(index=1, speaker="user", start_s=1, end_s=2.5, text="Grüße", sentiment=0.25,
             engines={"recognizer": "w"}, prosody={"f0_hz": 180.5}),
        Turn(index=2, speaker="agent", start_s=3, end_s=4, text="Yes", generated_text="Yes",
             kind="reply", policy_id="lora-7", latency=Latency(first_token_ms=80.5), li=1,
             li_coverage=0.5, li_windows=[0, 2], li_rule="majority"),
    ],
    windows=[
        AffectWindow(index=0, start_s=0, end_s=2, face_found=True, coverage=1, valence=0.8,
                     probabilities={"happiness": 0.9}, positive=True, classifier="c"),
        AffectWindow(index=1, start_s=1, end_s=3, face_found=True, coverage=1, valence=-0.2,
                     probabilities={"happiness": 0.1}, positive=False, classifier="c"),
        AffectWindow(index=2, start_s=9, end_s=11, face_found=False, coverage=0, classifier="c"),
    ],
)  # fmt: skip


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    """Of a store as migration 0001 left it, with three sessions."""
    made = store_engine.connect(store_engine.parse(url), 5.0)
    go_to(made, "0001")
    zone = "" if made.dialect.name == "sqlite" else "+00"
    with made.begin() as connection:
        for statement in (HEADS, TURNS, WINDOWS, TALLY):
            connection.exec_driver_sql(statement.format(z=zone))
    yield made
    made.dispose()


def go_to(engine: sa.Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(store_engine.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if revision == "0001" and sa.inspect(connection).has_table("changes"):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def test_everything_is_kept_and_counted(engine: sa.Engine, url: str) -> None:
    with Store.open(url) as store:
        assert store.get("full") == FULL
        live, empty, full = store.list()
        assert (full.n_turns, full.duration_s, full.positive_share) == (3, 11.0, 0.5)
        assert (full.coverage, full.labelled_share) == (2 / 3, 0.5)
        assert (full.tags, full.noted, full.live) == ((), False, False)
        assert (empty.n_turns, empty.duration_s, empty.coverage) == (0, 0.0, None)
        assert (live.n_turns, live.duration_s, live.live) == (1, 7.5, True)
        assert list(store.tally().values()) == [3]
        names = (*schema.COUNTS, "id")
        query = sa.select(*(schema.sessions.c[name] for name in names))
        with store.reading() as connection:
            rows = {row[-1]: tuple(row[:-1]) for row in connection.execute(query)}
        assert rows == {
            "full": (3, 2, 1, 3, 2, 1),
            "empty": (0, 0, 0, 0, 0, 0),
            "live": (1, 0, 0, 0, 0, 0),
        }


def test_what_came_with_0002_works_on_it(engine: sa.Engine, url: str) -> None:
    with Store.open(url) as store:
        change = corrections.tag(store, "full", "ada", add=["ä"])
        assert change is not None and change.before == {"tags": []}
        assert store.ids(Filter(tag="ä")) == ["full"]
        assert store.ids(Filter(says="soup")) == ["live"]
        corrections.undo(store, change.id, "ada")
        assert store.get("full") == FULL
        store.delete("full")
        assert corrections.listed(store) == []


# Alembic is for one thread; in SQLite the others wait before they come to it.
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_many_may_open_it_at_once(engine: sa.Engine, url: str) -> None:
    def read(_: int) -> Session:
        with Store.open(url) as store:
            return store.get("full")

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(read, range(3))) == [FULL] * 3


def test_there_is_a_way_back(engine: sa.Engine, url: str) -> None:
    with Store.open(url) as store:
        corrections.note(store, "full", "a note", "ada")
    go_to(engine, "0001")
    with engine.connect() as connection:
        columns = {one["name"] for one in sa.inspect(connection).get_columns("sessions")}
        assert not columns & {"note", "tags", "person", "duration_s", *schema.COUNTS}
    with Store.open(url) as store:
        assert store.get("full") == FULL  # without the note
