"""`geli tokens` and what is kept of a token."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from agent import tokens
from agent.cli import cli
from agent.errors import StoreError
from agent.records import person_of
from agent.schema import tokens as table
from agent.store import Store
from tests.agent.stores import on_disk

pytestmark = pytest.mark.unit


def geli(*words: str) -> Result:
    return CliRunner().invoke(cli, ["tokens", *words])


def age(store: Store, by: timedelta) -> None:
    """Let all tokens have been made that long ago."""
    with store.writing() as connection:
        for row in connection.execute(sa.select(table)).all():
            connection.execute(
                sa.update(table)
                .where(table.c.hash == row.hash)
                .values(expires_at=row.expires_at - by)
            )


def test_a_token_lets_in_until_its_end(store: Store) -> None:
    token, made = tokens.create(store, " Ada ", 7)
    assert len(token) == 64
    assert (made.name, made.hash) == ("Ada", person_of(token))
    assert made.expires_at - made.created_at == timedelta(days=7)
    assert tokens.by_token(store, token) == made
    assert tokens.by_cookie(store, tokens.cookie_value(token)) == made
    for wrong in ("", token[:-1], made.hash, tokens.cookie_value(token)):
        assert tokens.by_token(store, wrong) is None
    assert tokens.by_cookie(store, tokens.cookie_value("x")) is None
    age(store, timedelta(days=6, hours=23))
    assert tokens.by_token(store, token) is not None
    age(store, timedelta(hours=2))
    assert tokens.by_token(store, token) is None
    assert tokens.by_cookie(store, tokens.cookie_value(token)) is None
    (expired,) = tokens.listed(store)
    assert expired.state(datetime.now(UTC)) == "expired"
    with pytest.raises(StoreError, match="'Ada' is expired already"):
        tokens.revoke(store, "Ada")


def test_revoked_by_name_or_id(store: Store) -> None:
    given = [tokens.create(store, name, 1) for name in ("ada", "ada", "bob")]
    assert {t.hash for t in tokens.revoke(store, "ada")} == {made.hash for _, made in given[:2]}
    assert tokens.by_token(store, given[0][0]) is None
    (bob,) = tokens.revoke(store, given[2][1].id[:8])
    assert bob.name == "bob"
    with pytest.raises(StoreError, match="'bob' is revoked already"):
        tokens.revoke(store, "bob")
    with pytest.raises(StoreError, match="no token 'eve'"):
        tokens.revoke(store, "eve")


@pytest.mark.parametrize(("name", "days"), [("", 7), ("a\nb", 7), ("ada", 0), ("ada", 1e9)])
def test_what_cannot_be(store: Store, name: str, days: float) -> None:
    with pytest.raises(StoreError):
        tokens.create(store, name, days)
    assert tokens.listed(store) == []


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    made = geli("create", "Ada", "--days", "2")
    token = made.stdout.strip()
    assert made.exit_code == 0
    assert len(token) == 64
    assert "for Ada, until" in made.stderr
    assert "server.person_tokens = true" in made.stderr
    second = json.loads(
        geli("create", "Bob", "--json", "--set", "server.person_tokens=true").stdout
    )
    assert second["person"] == person_of(second["token"])
    assert second["state"] == "valid"
    listed = geli("list").stdout
    assert [line.split("\t")[1:3] for line in listed.splitlines()[1:]] in (
        [["Bob", "valid"], ["Ada", "valid"]],
        [["Ada", "valid"], ["Bob", "valid"]],
    )
    assert person_of(token)[:12] in listed
    revoked = geli("revoke", "Ada")
    assert revoked.stdout == f"{person_of(token)[:12]} of Ada is revoked\n"
    states = {one["name"]: one["state"] for one in json.loads(geli("list", "--json").stdout)}
    assert states == {"Ada": "revoked", "Bob": "valid"}
    assert json.loads(geli("revoke", "Bob", "--json").stdout) == [second["person"]]
    assert isinstance(geli("revoke", "Eve").exception, StoreError)
    assert on_disk(tmp_path, token, second["token"]) == {}  # nowhere, in no file
