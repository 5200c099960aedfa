"""`geli sessions`: what calls left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured
from agent.cli.transcript import clock, number, print_session, print_table, printable
from agent.errors import StoreError

if TYPE_CHECKING:
    from agent.config import Config
    from agent.store import SessionSummary, Store

CONSENTS = click.Choice(["keep", "learn"])
UNITS = {"d": 86_400, "h": 3_600, "m": 60}


@click.group()
def command() -> None:
    """List, show, export, import, rate and delete sessions."""


@command.command("list")
@click.option("--unrated", is_flag=True, help="only those without a rating")
@click.option("--consent", type=CONSENTS, multiple=True, help="only these (may be repeated)")
@click.option("--policy", metavar="ID", help="only calls with this policy")
@click.option("--since", metavar="WHEN", help="a date or time, or how long ago: 7d, 12h, 30m")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="a JSON array")
@configured
def list_command(
    config: Config,
    unrated: bool,
    consent: tuple[str, ...],
    policy: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Sessions, newest first."""
    from agent.records import Consent
    from agent.store import Filter

    only = Filter(
        consent=[Consent(value) for value in consent],
        unrated=unrated,
        policy_id=policy,
        since=parse_since(since, datetime.now(UTC)) if since else None,
    )
    with _store(config) as store:
        found = store.list(only, limit)
    if as_json:
        click.echo(json.dumps([asdict(summary) for summary in found], default=_to_json))
        return
    print_table(
        ["id", "started", "length", "turns", "rating", "positive", "seen", "consent", "ended"],
        [_list_row(summary) for summary in found],
        empty="no sessions",
    )


@command.command("show")
@click.argument("session_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="the whole record as one JSON object")
@configured
def show_command(config: Config, session_id: str, as_json: bool) -> None:
    """One session: its transcript, labels and latencies. The start of an ID is enough."""
    with _store(config) as store:
        session = store.get(store.resolve(session_id))
    if as_json:
        click.echo(session.model_dump_json())
    else:
        print_session(session)


@command.command("export")
@click.option("--consent", type=CONSENTS, multiple=True, help="only these (may be repeated)")
@click.option("--since", metavar="WHEN", help="as in 'list'")
@click.option("--policy", metavar="ID", help="only calls with this policy")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="FILE.jsonl[.gz]")
@configured
def export_command(
    config: Config,
    consent: tuple[str, ...],
    since: str | None,
    policy: str | None,
    out: Path | None,
) -> None:
    """Ended sessions as JSON Lines (schema: agent/jsonl.py), to a file or standard output."""
    from agent.jsonl import export_sessions
    from agent.records import Consent
    from agent.store import Filter

    only = Filter(policy_id=policy, since=parse_since(since, datetime.now(UTC)) if since else None)
    wanted = [Consent(value) for value in consent or ("keep", "learn")]
    with _store(config) as store:
        count = export_sessions(store.iter_sessions(wanted, None, only=only), out)
    click.echo(f"{_count(count, 'session')} exported", err=True)


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="only say what would happen")
@click.option("--json", "as_json", is_flag=True, help="the report as one JSON object")
@configured
@click.pass_context
def import_command(
    ctx: click.Context, config: Config, file: Path, dry_run: bool, as_json: bool
) -> None:
    """Add sessions from JSON Lines. Bad lines are rejected one by one, the good ones are kept."""
    from agent.jsonl import import_file

    with _store(config) as store:
        report = import_file(store, file, dry_run)
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        for rejection in report.rejected:
            click.echo(f"{file}:{rejection.line}: {printable(rejection.reason)}", err=True)
        would = "would be " if dry_run else ""
        click.echo(
            f"{_count(len(report.imported), 'session')} {would}imported, "
            f"{len(report.duplicates)} known already, {len(report.rejected)} rejected"
        )
    if report.rejected:
        ctx.exit(2)


@command.command("rate")
@click.argument("session_id", metavar="ID")
@click.argument("value", type=float, metavar="0-100")
@click.option("--comment", help="a comment beside it")
@configured
def rate_command(config: Config, session_id: str, value: float, comment: str | None) -> None:
    """Give a session its overall affect, 0 (very negative) to 100 (very positive)."""
    with _store(config) as store:
        found = store.resolve(session_id)
        store.rate(found, value, "cli", comment)
    click.echo(f"{found} is rated {value:g}")


@command.command("delete")
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="do not ask")
@configured
def delete_command(config: Config, session_ids: tuple[str, ...], yes: bool) -> None:
    """Delete sessions for good; their text is overwritten in the store."""
    with _store(config) as store:
        found = list(dict.fromkeys(store.resolve(given) for given in session_ids))
        for session_id in found:
            session = store.get(session_id)
            click.echo(
                f"{session_id}: {_count(len(session.turns), 'turn')}, "
                f"{_count(len(session.windows), 'window')}, "
                f"rating {number(session.overall_affect, 'g')}"
            )
        if not yes:
            click.confirm(f"delete {_count(len(found), 'session')} for good?", abort=True)
        learned = list(dict.fromkeys(i for session_id in found for i in _mark_deleted(session_id)))
        purged = [store.delete(session_id).purged for session_id in found]
    click.echo(f"{_count(len(found), 'session')} deleted")
    if learned:
        click.echo(f"trained on it: {', '.join(learned)}; retrain with 'geli learn round'")
    if not all(purged):
        click.echo(
            "another process reads the store: its log keeps the text until that process ends",
            err=True,
        )


def _mark_deleted(session_id: str) -> list[str]:
    """Mark what learned from the session, before it is deleted: a deletion that fails half-way is
    made again, a mark would be forgotten. The session goes whether or not it can be marked."""
    from agent import policies
    from agent.errors import GeliError
    from agent.store_engine import data_dir

    try:
        return policies.mark_deleted(policies.registry_of(data_dir()), session_id)
    except GeliError as error:
        click.echo(f"{session_id}: not marked where it was learned from: {error}", err=True)
        return []


def parse_since(text: str, now: datetime) -> datetime:
    """A date or time (local when it has no zone), or how long before `now`: 7d, 12h, 30m.

    Raises:
        StoreError: neither.
    """
    ago = re.fullmatch(r"(\d{1,6})([dhm])", text.strip())
    try:
        if ago:
            return now - timedelta(seconds=int(ago[1]) * UNITS[ago[2]])
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise StoreError(f"--since {text!r} is no time", "e.g. 2026-11-01, 7d or 12h") from None


@contextmanager
def _store(config: Config) -> Iterator[Store]:
    from agent.store import Store

    with Store.open(config.store.url) as store:
        for session_id in store.close_crashed(config.labels):
            click.echo(f"{session_id} was cut off by a crash and is closed now", err=True)
        yield store


def _list_row(summary: SessionSummary) -> list[str]:
    ended = "in progress" if summary.live else summary.ended_how or "open"
    return [
        summary.id,
        f"{summary.started_at.astimezone():%Y-%m-%d %H:%M}",
        clock(summary.duration_s),
        str(summary.n_turns),
        number(summary.overall_affect, "g"),
        number(summary.positive_share, ".0%"),
        number(summary.coverage, ".0%"),
        summary.consent + (", excluded" if summary.excluded else ""),
        ended,
    ]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _to_json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")
