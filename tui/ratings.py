"""What people's ratings say of each policy, from the sessions' summaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from agent.config import Config
from agent.records import Consent
from agent.store import Filter, Store
from learning.registry import Registry
from tui import charts
from tui.words import counted, number, plain, share

if TYPE_CHECKING:
    from learning.registry import Manifest
    from learning.report import CallOutcome, Difference, PolicyRow

BAR = 24


@dataclass(slots=True, frozen=True)
class Ratings:
    """The calls of each policy, and what their ratings say of the one that speaks."""

    calls: list[CallOutcome]
    rows: list[PolicyRow]
    """One a policy, most calls first."""
    simulated: bool
    """The calls are with simulated users: there are no others."""
    against: Difference | None
    """Candidate against what speaks, else what speaks against what spoke before."""


def calls_of(store: Store) -> tuple[list[CallOutcome], bool]:
    """Ended calls that are not excluded, with simulated users only where there are no others.

    Raises:
        StoreError: the store cannot be read.
    """
    from learning.report import CallOutcome

    only = Filter(consent=(Consent.KEEP, Consent.LEARN), excluded=False, live=False)
    found = [
        one
        for one in store.list(only, limit=None)
        if one.ended_how is not None and one.policy_id is not None
    ]
    simulated = bool(found) and all(one.source == "simulated" for one in found)
    return [
        CallOutcome(one.policy_id or "", one.overall_affect, one.n_turns, one.positive_share)
        for one in found
        if simulated or one.source != "simulated"
    ], simulated


def read(
    store: Store, registry: Registry, config: Config, before: Ratings | None = None
) -> Ratings:
    """Ratings by policy with intervals; `before` is given back where nothing changed.

    Raises:
        StoreError: the store cannot be read.
        RegistryError: the registry cannot be read.
    """
    from learning import report

    calls, simulated = calls_of(store)
    pair = _of_interest(registry)
    spoken = None if pair is None else [policy_id(one, registry, config) for one in pair]
    if before is not None and before.calls == calls:
        against = before.against
        if spoken is None and against is None:
            return before
        if spoken is not None and against is not None and [against.a, against.b] == spoken:
            return before
    rows = report.by_policy(calls)
    against = None if spoken is None else report.compare(calls, spoken[0], spoken[1])
    return Ratings(calls, rows, simulated, against)


def policy_id(entry_id: str | None, registry: Registry, config: Config) -> str:
    """The id that sessions carry: the base's name, or with `+` and the registry's id."""
    if entry_id is None:
        return config.responder.model
    return f"{registry.get(entry_id).base}+{entry_id}"


def _of_interest(registry: Registry) -> tuple[str | None, str | None] | None:
    """Candidate and what speaks, else what speaks and what spoke before it."""
    from learning.errors import RegistryError

    state = registry.state
    if state.candidate is not None:
        return state.candidate, state.promoted
    try:
        return state.promoted, registry.previous
    except RegistryError:  # nothing was promoted yet
        return None


def row_of(ratings: Ratings, entry: Manifest | None, config: Config) -> PolicyRow | None:
    """The calls of one policy; None as entry: of the base."""
    for row in ratings.rows:
        if entry is None:
            if row.policy_id == config.responder.model:
                return row
        elif row.policy_id.endswith(f"+{entry.id}"):
            return row
    return None


def in_short(row: PolicyRow | None) -> Text:
    """One policy's calls in two lines."""
    out = Text()
    out.append("Ratings of its calls\n", "bold")
    if row is None:
        return out.append("  no call was held with it yet\n")
    out.append(f"  {counted(row.calls, 'call')}, {row.rated} rated")
    if row.mean is not None:
        out.append(f", mean {row.mean:.1f}{_span(row)}")
    if row.positive_share is not None:
        out.append(f", positive faces {row.positive_share:.0%}")
    return out.append("\n")


def table(ratings: Ratings, width: int) -> Text:
    """All policies, and whether the data decides between the two that matter now."""
    out = Text()
    rated = sum(row.rated for row in ratings.rows)
    of = "calls with simulated users" if ratings.simulated else "ended calls"
    out.append(f"Ratings by policy: {len(ratings.calls)} {of}, {rated} rated\n", "bold")
    if not ratings.rows:
        return out.append("  no ended call yet: hold one (make call), then rate it\n")
    room = max(min(max(len(plain(row.policy_id)) for row in ratings.rows), width - 44), 12)
    bars = width >= room + 44 + BAR + 2
    head = f"  {'policy':<{room}} {'calls':>5} {'rated':>5} {'mean':>5} {'95 % interval':>15}"
    out.append(f"{head} {'faces':>5}{f'  0{100:>{BAR - 1}}' if bars else ''}\n", "dim")
    for row in ratings.rows:
        name = plain(row.policy_id)
        if len(name) > room:
            name = name.rpartition("+")[2][:room]
        span = "–" if row.low is None else f"{row.low:.1f} to {row.high:.1f}"
        out.append(f"  {name:<{room}} {row.calls:>5} {row.rated:>5} ")
        out.append(f"{number(row.mean, '.1f'):>5} {span:>15} {share(row.positive_share):>5}")
        if bars:
            out.append(f"  {charts.interval(row.low, row.mean, row.high, BAR)}")
        out.append("\n")
    return out.append_text(_verdict(ratings))


def _verdict(ratings: Ratings) -> Text:
    out = Text()
    if ratings.against is None:
        return out.append(
            "\nNo policy was promoted or is the candidate: there is nothing to compare.\n"
        )
    out.append(f"\n{ratings.against.a} against {ratings.against.b}:\n", "dim")
    out.append(f"{'✓' if ratings.against.decided else '?'} {ratings.against.verdict}\n", "bold")
    out.append(
        "The interval is meant for one look: whoever stops at the first decision of many is wrong "
        "more often.\n",
        "dim",
    )
    return out


def _span(row: PolicyRow) -> str:
    return "" if row.low is None else f" [{row.low:.1f}, {row.high:.1f}]"
