"""`geli tokens`: let single people in, each with a token and an end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured
from agent.cli.sessions import opened
from agent.cli.transcript import print_table

if TYPE_CHECKING:
    from agent.config import Config
    from agent.tokens import Token

JSON = click.option("--json", "as_json", is_flag=True, help="JSON for programs")


@click.group()
def command() -> None:
    """Let single people in (server.person_tokens), each with a token and an end."""


@command.command()
@click.argument("name", metavar="NAME")
@click.option("--days", type=float, default=7.0, show_default=True, help="until it ends")
@JSON
@configured
def create(config: Config, name: str, days: float, as_json: bool) -> None:
    """Make a token and print it, once: only its hash is kept."""
    from agent import tokens

    with opened(config) as store:
        token, made = tokens.create(store, name, days)
    if as_json:
        click.echo(json.dumps({"token": token, **_json(made)}, ensure_ascii=False, indent=2))
        return
    click.echo(token)
    until = f"{made.expires_at.astimezone():%Y-%m-%d %H:%M}"
    click.echo(f"for {made.name}, until {until}; the page opens with ?token=…", err=True)
    if not config.server.person_tokens:
        click.echo("it counts once server.person_tokens = true", err=True)


@command.command("list")
@JSON
@configured
def list_(config: Config, as_json: bool) -> None:
    """Whose tokens there are, newest first; never the tokens."""
    from agent import tokens

    with opened(config) as store:
        found = tokens.listed(store)
    if as_json:
        click.echo(json.dumps([_json(token) for token in found], ensure_ascii=False, indent=2))
        return
    now = datetime.now(UTC)
    rows = [
        [
            token.id,
            token.name,
            token.state(now),
            f"{token.created_at.astimezone():%Y-%m-%d %H:%M}",
            f"{token.expires_at.astimezone():%Y-%m-%d %H:%M}",
        ]
        for token in found
    ]
    print_table(["id", "name", "state", "created", "until"], rows, "no tokens")


@command.command()
@click.argument("which", metavar="ID|NAME")
@JSON
@configured
def revoke(config: Config, which: str, as_json: bool) -> None:
    """End a token, or all of a person's; a running server knows within seconds."""
    from agent import tokens

    with opened(config) as store:
        ended = tokens.revoke(store, which)
    if as_json:
        click.echo(json.dumps([token.hash for token in ended], indent=2))
        return
    for token in ended:
        click.echo(f"{token.id} of {token.name} is revoked")


def _json(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "person": token.hash,
        "name": token.name,
        "state": token.state(datetime.now(UTC)),
        "created_at": token.created_at.isoformat(),
        "expires_at": token.expires_at.isoformat(),
        "revoked_at": token.revoked_at.isoformat() if token.revoked_at else None,
    }
