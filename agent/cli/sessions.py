"""`geli sessions`: what calls left behind."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
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
    from agent.store import Filter, SessionSummary, Store

CONSENTS = click.Choice(["keep", "learn"])
ENDED = click.Choice(["hung_up", "dropped", "crashed", "timed_out"])
ORDERS = ("started", "length", "turns", "rating", "positive", "labels", "seen", "policy", "ended")
LARGEST = 2**31 - 1
"""What every database takes for a whole number."""
UNITS = {"d": 86_400, "h": 3_600, "m": 60}


def filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose sessions; the function gets `only`, a `Filter`."""

    @click.option("--unrated", is_flag=True, help="only those without a rating")
    @click.option("--consent", type=CONSENTS, multiple=True, help="only these (may be repeated)")
    @click.option("--policy", metavar="ID", help="only calls with this policy")
    @click.option("--since", metavar="WHEN", help="a date or time, or how long ago: 7d, 12h, 30m")
    @click.option("--until", metavar="WHEN", help="as --since")
    @click.option("--ended", type=ENDED, multiple=True, help="only those that ended so")
    @click.option("--excluded/--included", default=None, help="only those kept out of learning")
    @click.option("--seen-below", type=click.FloatRange(0, 1), help="a face in less of it")
    @click.option("--tag", metavar="TAG", help="only those with this tag")
    @click.option("--person", metavar="TOKEN", help="only the sessions of this person's token")
    @click.option("--search", "says", metavar="WORDS", default="", help="words of the transcript")
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        unrated: bool,
        consent: tuple[str, ...],
        policy: str | None,
        since: str | None,
        until: str | None,
        ended: tuple[str, ...],
        excluded: bool | None,
        seen_below: float | None,
        tag: str | None,
        person: str | None,
        says: str,
        **kwargs: Any,
    ) -> Any:
        from agent.records import Consent, EndedHow
        from agent.store import Filter

        now = datetime.now(UTC)
        only = Filter(
            consent=[Consent(value) for value in consent],
            unrated=unrated,
            policy_id=policy,
            since=None if since is None else parse_time("--since", since, now),
            until=None if until is None else parse_time("--until", until, now),
            ended_how=[EndedHow(value) for value in ended],
            excluded=excluded,
            seen_below=seen_below,
            tag=tag,
            person=None if person is None else person_of(person),
            says=says,
        )
        return function(*args, only=only, **kwargs)

    return wrapper


@click.group()
def command() -> None:
    """List, show, correct, export, import and delete sessions."""


@command.command("list")
@filtered
@click.option("--sort", type=click.Choice(ORDERS), default="started", show_default=True)
@click.option("--reverse", is_flag=True, help="smallest (oldest) first")
@click.option("--limit", type=click.IntRange(1, LARGEST), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="a JSON array")
@configured
def list_command(
    config: Config, only: Filter, sort: str, reverse: bool, limit: int, as_json: bool
) -> None:
    """Sessions, newest first."""
    with opened(config) as store:
        found = store.list(only, limit, order=sort, descending=not reverse)  # type: ignore[arg-type]
    if as_json:
        click.echo(json.dumps([asdict(summary) for summary in found], default=to_json))
        return
    print_table(
        ["id", "started", "length", "turns", "rating", "positive", "labels", "seen", "consent",
         "ended", "tags"],
        [_list_row(summary) for summary in found],
        empty="no sessions",
    )  # fmt: skip


@command.command("stats")
@filtered
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def stats_command(config: Config, only: Filter, as_json: bool) -> None:
    """What the store holds: counts, ratings, labels, how calls ended, by policy and consent."""
    from agent.stats import count, lines

    with opened(config) as store:
        found = count(store, only)
    told = [json.dumps(asdict(found))] if as_json else lines(found)
    click.echo("\n".join(printable(line) for line in told))


@command.command("show")
@click.argument("session_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="the whole record as one JSON object")
@configured
def show_command(config: Config, session_id: str, as_json: bool) -> None:
    """One session: its transcript, labels and latencies. The start of an ID is enough."""
    with opened(config) as store:
        session = store.get(store.resolve(session_id))
    if as_json:
        click.echo(session.model_dump_json())
    else:
        print_session(session)


@command.command("export")
@filtered
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="FILE.jsonl[.gz]")
@configured
def export_command(config: Config, only: Filter, out: Path | None) -> None:
    """Ended sessions as JSON Lines (schema: agent/jsonl.py), to a file or standard output."""
    from agent.jsonl import export_sessions
    from agent.records import Consent

    wanted = only.consent or [Consent.KEEP, Consent.LEARN]
    with opened(config) as store:
        count = export_sessions(store.iter_sessions(wanted, only.excluded, only=only), out)
    click.echo(f"{counted(count, 'session')} exported", err=True)


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

    with opened(config) as store:
        report = import_file(store, file, dry_run)
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        for rejection in report.rejected:
            click.echo(f"{file}:{rejection.line}: {printable(rejection.reason)}", err=True)
        would = "would be " if dry_run else ""
        click.echo(
            f"{counted(len(report.imported), 'session')} {would}imported, "
            f"{len(report.duplicates)} known already, {len(report.rejected)} rejected"
        )
    if report.rejected:
        ctx.exit(2)


@command.command("delete")
@click.argument("session_ids", metavar="ID...", nargs=-1)
@click.option("--person", metavar="TOKEN", help="all sessions of this person's token")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--json", "as_json", is_flag=True, help="one JSON object; with --yes")
@configured
def delete_command(
    config: Config, session_ids: tuple[str, ...], person: str | None, yes: bool, as_json: bool
) -> None:
    """Delete sessions for good; their text is overwritten in the store."""
    from agent.retention import of_person, remove

    if not session_ids and person is None:
        raise click.UsageError("name sessions, or --person")
    if as_json and not yes:
        raise click.UsageError("--json does not ask: add --yes")
    with opened(config) as store:
        found = [store.resolve(given) for given in session_ids]
        found += [] if person is None else of_person(store, person_of(person))
        found = list(dict.fromkeys(found))
        if as_json:
            click.echo(json.dumps(asdict(remove(store, found))))
            return
        if not found:
            click.echo("no sessions of this person")
            return
        for one in store.summaries(found):
            click.echo(
                f"{one.id}: {counted(one.n_turns, 'turn')}, {clock(one.duration_s)}, "
                f"rating {number(one.overall_affect, 'g')}"
            )
        if not yes:
            click.confirm(f"delete {counted(len(found), 'session')} for good?", abort=True)
        _remove(store, found)


@command.command("purge")
@click.option("--yes", is_flag=True, help="delete them; without it, only say what is due")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def purge_command(config: Config, yes: bool, as_json: bool) -> None:
    """What is older than [retention] allows; with --yes it is deleted for good."""
    from agent.retention import due, remove

    with opened(config) as store:
        found = due(store, config.retention)
        if as_json:
            done = remove(store, [one.id for one in found]) if yes else None
            content = {"due": [asdict(one) for one in found], "removed": done and asdict(done)}
            click.echo(json.dumps(content, default=to_json))
            return
        for consent, days in config.retention.days.items():
            click.echo(f"{consent}: kept {'for good' if days is None else f'{days:g} days'}")
        if found:
            print_table(
                ["id", "started", "consent", "days", "limit"],
                [
                    [one.id, f"{one.started_at.astimezone():%Y-%m-%d}", one.consent,
                     f"{one.days:.0f}", f"{one.limit:g}"]
                    for one in found
                ],
                empty="",
            )  # fmt: skip
        if not yes:
            then = ": geli sessions purge --yes" if found else ""
            click.echo(f"{counted(len(found), 'session')} due for deletion{then}")
        else:
            _remove(store, [one.id for one in found])


def _remove(store: Store, ids: list[str]) -> None:
    """Delete and say what came of it."""
    from agent.retention import remove

    done = remove(store, ids)
    for session_id, why in done.unmarked.items():
        click.echo(f"{session_id}: not marked where it was learned from: {why}", err=True)
    click.echo(f"{counted(len(done.ids), 'session')} deleted")
    if done.trained:
        click.echo(f"trained on it: {', '.join(done.trained)}; retrain with 'geli learn round'")
    if done.left_over:
        click.echo(f"not gone from the file yet: {done.left_over}", err=True)


def parse_time(option: str, text: str, now: datetime) -> datetime:
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
        raise StoreError(f"{option} {text!r} is no time", "e.g. 2026-11-01, 7d or 12h") from None


def person_of(token: str) -> str:
    """What is stored of a person's token.

    Raises:
        StoreError: not a token.
    """
    from agent import records

    try:
        return records.person_of(token)
    except ValueError as error:
        raise StoreError(str(error), "the page shows it when a call ends") from None


@contextmanager
def opened(config: Config) -> Iterator[Store]:
    """The store; sessions that a crash left open are closed first."""
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
        number(summary.labelled_share, ".0%"),
        number(summary.coverage, ".0%"),
        summary.consent + (", excluded" if summary.excluded else ""),
        ended,
        ", ".join(summary.tags),
    ]


def counted(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def to_json(value: Any) -> str:
    """For `json.dumps`: a time as ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


from agent.cli import corrections  # noqa: E402

corrections.add_to(command)
