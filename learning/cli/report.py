"""`geli learn report`: what people's ratings say of the live policies."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config import Config
    from learning.registry import Registry
    from learning.report import PolicyRow


@click.command()
@click.option(
    "--policies",
    "pair",
    metavar="A,B",
    help="compare these: ids, or 'base' (default: candidate and promoted, else promoted and "
    "what spoke before it)",
)
@click.option("--simulated", is_flag=True, help="count calls with simulated users too")
@click.option("--seed", type=int, default=0, show_default=True, help="of the bootstrap")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(config: Config, pair: str | None, simulated: bool, seed: int, as_json: bool) -> None:
    """Ratings by policy, and the difference of two with a 95 % interval.

    Means have a bootstrap interval over calls, the difference has Welch's t. It is meant for one
    look: looking often and stopping at the first decision is wrong more often than it says.
    """
    from agent.records import Consent
    from agent.store import Store
    from learning import report
    from learning.registry import Registry

    with Store.open(config.store.url) as store:
        sessions = store.iter_sessions({Consent.KEEP, Consent.LEARN})
        calls = report.outcomes(sessions, simulated=simulated)
    rows = report.by_policy(calls, seed)
    registry = Registry.open()
    wanted = _asked(pair, registry, rows, config) if pair else _of_interest(registry, rows, config)
    difference = report.compare(calls, *wanted) if wanted else None
    if as_json:
        compared = asdict(difference) | {"verdict": difference.verdict} if difference else None
        out = {"policies": [asdict(row) for row in rows], "comparison": compared}
        click.echo(json.dumps(out | {"confidence": report.CONFIDENCE, "seed": seed}, indent=2))
        return
    _print(rows)
    if difference is not None:
        click.echo(f"{difference.a} against {difference.b}: {difference.verdict}")
    else:
        click.echo("no policy was promoted or named as candidate, so there is nothing to compare")


def _print(rows: Sequence[PolicyRow]) -> None:
    from agent.cli.transcript import number, print_table

    print_table(
        ["policy", "calls", "rated", "mean rating", "95 % interval", "turns", "positive faces"],
        [
            [
                row.policy_id,
                str(row.calls),
                str(row.rated),
                number(row.mean, ".1f"),
                "–" if row.low is None else f"{row.low:.1f} to {row.high:.1f}",
                number(row.turns, ".1f"),
                number(row.positive_share, ".0%"),
            ]
            for row in rows
        ],
        empty="no calls yet",
    )


def _of_interest(
    registry: Registry, rows: Sequence[PolicyRow], config: Config
) -> tuple[str, str] | None:
    """Candidate and promoted, else promoted and what spoke before it."""
    from learning.errors import RegistryError

    state = registry.state
    first, second = state.candidate, state.promoted
    if first is None:
        first = state.promoted
        try:
            second = registry.previous
        except RegistryError:  # nothing was promoted yet
            return None
    return _spoken(first, registry, rows, config), _spoken(second, registry, rows, config)


def _asked(
    pair: str, registry: Registry, rows: Sequence[PolicyRow], config: Config
) -> tuple[str, str]:
    from learning.registry import BASE

    names = [name.strip() for name in pair.split(",")]
    if len(names) != 2 or not all(names):
        raise click.UsageError(f"--policies {pair!r}: two ids, as in p-2026,base")
    ids = [
        name
        if name in {row.policy_id for row in rows}
        else _spoken(None if name == BASE else registry.get(name).id, registry, rows, config)
        for name in names
    ]
    if ids[0] == ids[1]:
        raise click.UsageError(f"--policies {pair!r}: both are {ids[0]}")
    return ids[0], ids[1]


def _spoken(
    entry_id: str | None, registry: Registry, rows: Sequence[PolicyRow], config: Config
) -> str:
    """The policy id that sessions carry: the base's name, `+` the registry's id."""
    if entry_id is None:
        return config.responder.model
    for row in rows:
        if row.policy_id.endswith(f"+{entry_id}"):
            return row.policy_id
    return f"{registry.get(entry_id).base}+{entry_id}"
