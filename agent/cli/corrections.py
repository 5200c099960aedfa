"""`geli sessions rate|exclude|include|note|tag|label|changes|undo`: corrections, each one kept."""

from __future__ import annotations

import getpass
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from agent.cli import sessions
from agent.cli.options import configured
from agent.cli.transcript import print_table, printable

if TYPE_CHECKING:
    from agent.config import Config
    from agent.corrections import Change


def user() -> str:
    """Who runs the program; in a container the number of a user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


IDS = click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
BY = click.option("--by", metavar="NAME", default=user, help="who (default: you)")
JSON = click.option("--json", "as_json", is_flag=True, help="the changes as a JSON array")
LABELS = {"positive": 1, "not": 0, "unknown": None}


def add_to(group: click.Group) -> None:
    """Add these commands to `geli sessions`."""
    for each in (rate, exclude, include, note, tag, label, changes, undo):
        group.add_command(each)


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("value", type=float, metavar="0-100")
@click.option("--comment", help="a comment beside it")
@BY
@JSON
@configured
def rate(
    config: Config, session_id: str, value: float, comment: str | None, by: str, as_json: bool
) -> None:
    """Give a session its overall affect, 0 (very negative) to 100 (very positive)."""
    from agent import corrections

    with sessions.opened(config) as store:
        found = store.resolve(session_id)
        made = corrections.rate(store, found, value, by, comment, source="cli")
    _told([made], [found], as_json)


@click.command()
@IDS
@click.option("--reason", required=True, metavar="WHY", help="for whoever reads it later")
@BY
@JSON
@configured
def exclude(
    config: Config, session_ids: tuple[str, ...], reason: str, by: str, as_json: bool
) -> None:
    """Keep sessions out of learning."""
    from agent import corrections

    with sessions.opened(config) as store:
        found = [store.resolve(given) for given in session_ids]
        made = [corrections.exclude(store, one, reason, by) for one in found]
    _told(made, found, as_json)


@click.command()
@IDS
@BY
@JSON
@configured
def include(config: Config, session_ids: tuple[str, ...], by: str, as_json: bool) -> None:
    """Take an exclusion back."""
    from agent import corrections

    with sessions.opened(config) as store:
        found = [store.resolve(given) for given in session_ids]
        made = [corrections.include(store, one, by) for one in found]
    _told(made, found, as_json)


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("text")
@BY
@JSON
@configured
def note(config: Config, session_id: str, text: str, by: str, as_json: bool) -> None:
    """Set a session's note; an empty TEXT removes it."""
    from agent import corrections

    with sessions.opened(config) as store:
        found = store.resolve(session_id)
        made = corrections.note(store, found, text, by)
    _told([made], [found], as_json)


@click.command()
@IDS
@click.option("--add", multiple=True, metavar="TAG", help="may be repeated")
@click.option("--remove", multiple=True, metavar="TAG", help="may be repeated")
@BY
@JSON
@configured
def tag(
    config: Config,
    session_ids: tuple[str, ...],
    add: tuple[str, ...],
    remove: tuple[str, ...],
    by: str,
    as_json: bool,
) -> None:
    """Add tags to sessions, or remove them."""
    from agent import corrections

    if not add and not remove:
        raise click.UsageError("nothing to do: give --add or --remove")
    with sessions.opened(config) as store:
        found = [store.resolve(given) for given in session_ids]
        made = [corrections.tag(store, one, by, add, remove) for one in found]
    _told(made, found, as_json)


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("turn", type=click.IntRange(0, sessions.LARGEST))
@click.argument("value", type=click.Choice(list(LABELS)))
@BY
@JSON
@configured
def label(config: Config, session_id: str, turn: int, value: str, by: str, as_json: bool) -> None:
    """Override the listener's label of one agent turn."""
    from agent import corrections

    given = LABELS[value]
    with sessions.opened(config) as store:
        found = store.resolve(session_id)
        made = corrections.label(store, found, turn, given, by)  # type: ignore[arg-type]
    _told([made], [found], as_json)


@click.command()
@click.argument("session_id", metavar="[ID]", required=False)
@click.option("--limit", type=click.IntRange(1, sessions.LARGEST), default=200, show_default=True)
@JSON
@configured
def changes(config: Config, session_id: str | None, limit: int, as_json: bool) -> None:
    """What was corrected, newest first, in one session or in all."""
    from agent import corrections

    with sessions.opened(config) as store:
        found = corrections.listed(store, store.resolve(session_id) if session_id else None, limit)
    if as_json:
        click.echo(json.dumps([asdict(change) for change in found], default=sessions.to_json))
        return
    print_table(
        ["change", "at", "by", "session", "what", "undoes"],
        [
            [str(c.id), f"{c.at.astimezone():%Y-%m-%d %H:%M}", c.by, c.session_id, str(c),
             str(c.undoes or "")]
            for c in found
        ],
        empty="nothing was corrected",
    )  # fmt: skip


@click.command()
@click.argument("change", type=click.IntRange(1, sessions.LARGEST))
@BY
@JSON
@configured
def undo(config: Config, change: int, by: str, as_json: bool) -> None:
    """Put back what a change (its number stands in 'changes') replaced."""
    from agent import corrections

    with sessions.opened(config) as store:
        made = corrections.undo(store, change, by)
    _told([made], [made.session_id], as_json)


def _told(made: list[Change | None], ids: list[str], as_json: bool) -> None:
    if as_json:
        done = [asdict(change) for change in made if change is not None]
        click.echo(json.dumps(done, default=sessions.to_json))
        return
    for session_id, change in zip(ids, made, strict=True):
        if change is None:
            click.echo(f"{session_id}: it is so already")
        else:
            click.echo(printable(f"{session_id}: {change} (change {change.id})"))
