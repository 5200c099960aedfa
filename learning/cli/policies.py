"""`geli learn policies`: what was learned, and which of it speaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.config import Config
    from agent.policies import State
    from learning.registry import Manifest, Registry


@click.group()
def command() -> None:
    """List, show, promote, roll back, verify and export policies (and rewards)."""


@command.command("list")
@click.option("--rewards", is_flag=True, help="the reward functions instead")
@click.option("--json", "as_json", is_flag=True, help="a JSON array")
@configured
def list_(config: Config, rewards: bool, as_json: bool) -> None:
    """What was learned, newest first, and how the calls with each policy were rated so far."""
    from agent.cli.transcript import number, print_table
    from learning.registry import Registry

    registry = Registry.open()
    kind: Any = "reward" if rewards else "policy"
    state, found = registry.state, registry.list(kind)
    ratings = {} if rewards else _ratings(config)
    if as_json:
        rows = [_as_json(registry, manifest, state, ratings) for manifest in found]
        click.echo(json.dumps(rows, indent=2))
    else:
        columns = ["id", "when", "parent", "base", "gates", "is", "sessions", "deleted sessions"]
        if not rewards:
            columns += ["rated calls", "rating"]
        lines = []
        for manifest in found:
            line = [
                manifest.id,
                f"{manifest.created_at.astimezone():%Y-%m-%d %H:%M}",
                manifest.parent or "–",
                manifest.base,
                _gates(manifest),
                _standing(manifest, state),
                str(len(manifest.sessions)),
                str(len(registry.marks(manifest.id))),
            ]
            if not rewards:
                n, mean = ratings.get(manifest.id, (0, None))
                line += [str(n), number(mean, ".1f")]
            lines.append(line)
        print_table(columns, lines, empty=f"no {'rewards' if rewards else 'policies'} yet")
        if not rewards:
            click.echo(f"promoted: {state.promoted or 'base'}", err=True)
    for error in registry.unreadable(kind).values():
        click.echo(f"geli: {error}", err=True)


@command.command()
@click.argument("entry_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="the manifest and what came later")
@configured
def show(config: Config, entry_id: str, as_json: bool) -> None:
    """One policy or reward: its manifest, gates, files and marks. The start of an ID is enough."""
    from learning.registry import Registry

    registry = Registry.open()
    manifest = registry.get(entry_id)
    ratings = _ratings(config) if manifest.kind == "policy" else {}
    if as_json:
        click.echo(json.dumps(_as_json(registry, manifest, registry.state, ratings), indent=2))
        return
    n, mean = ratings.get(manifest.id, (0, None))
    gone = registry.marks(manifest.id)
    lines = {
        manifest.kind: f"{manifest.id} {_standing(manifest, registry.state)}".strip(),
        "when": f"{manifest.created_at.astimezone():%Y-%m-%d %H:%M:%S %Z}",
        "folder": str(registry.path(manifest.id)),
        "base": manifest.base,
        "parent": manifest.parent or "",
        "reward": manifest.reward or "",
        "data": f"{manifest.data_source}, digest {manifest.data_digest}, seed {manifest.seed}",
        "sessions": str(len(manifest.sessions)),
        "rated calls": f"{n}, mean {mean:.1f}" if mean is not None else "",
        "notes": manifest.notes,
    }
    for key, value in lines.items():
        if value:
            click.echo(f"{key:<12} {value}")
    for gate in manifest.gates:
        click.echo(f"{'gate':<12} {'passed' if gate.passed else 'FAILED'}: {gate}")
    for name, measured in manifest.metrics.items():
        click.echo(f"{'metric':<12} {name} {measured:.6g}")
    for name in manifest.files:
        click.echo(f"{'file':<12} {name}")
    for name, version in manifest.versions.items():
        click.echo(f"{'version':<12} {name} {version}")
    if gone:
        click.echo(
            f"deleted since, but learned from: {', '.join(gone)} — retrain with 'geli learn round'"
        )


@command.command()
@click.argument("policy_id", metavar="ID|base")
@click.option("--force", is_flag=True, help="even where gates failed")
@click.option("--by", metavar="NAME", help="who says so (default: the user of this terminal)")
def promote(policy_id: str, force: bool, by: str | None) -> None:
    """Let a policy speak from the next call on; 'base' is the model without an adapter."""
    from learning.registry import Registry

    registry = Registry.open()
    before = registry.state.promoted
    now = registry.promote(policy_id, by or _user(), force)
    click.echo(f"the next call speaks with {now.promoted or 'base'} (before: {before or 'base'})")
    if now.promoted is not None and not registry.get(now.promoted).gates:
        click.echo("no gate was measured on it", err=True)


@command.command()
@click.option("--by", metavar="NAME", help="who says so (default: the user of this terminal)")
def rollback(by: str | None) -> None:
    """Go back to the policy that spoke before; again: to the one before that."""
    from learning.registry import Registry

    registry = Registry.open()
    before = registry.state.promoted
    now = registry.rollback(by or _user())
    click.echo(f"the next call speaks with {now.promoted or 'base'} (before: {before or 'base'})")


@command.command()
@click.argument("entry_id", metavar="ID")
def verify(entry_id: str) -> None:
    """Read an entry's files again and compare their digests; exit code 2 when one differs."""
    from learning.registry import Registry

    manifest = Registry.open().verify(entry_id)
    click.echo(f"{manifest.id}: {len(manifest.files)} files, as they were registered")


@command.command()
@click.argument("policy_id", metavar="ID")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--as", "form", type=click.Choice(["merged", "gguf"]), required=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="of merged weights; less than float32 can round away what was learned",
)
@configured
def export(config: Config, policy_id: str, folder: Path, form: str, precision: str) -> None:
    """Write a policy for another program's server, into FOLDER under its ID.

    \b
    --as merged   FOLDER/ID, base and adapter as one model (responder.adapters = "paths")
    --as gguf     FOLDER/ID.gguf, for llama-server --lora (responder.adapters = "llama.cpp")
    """
    from agent import weights
    from learning.errors import RegistryError
    from learning.registry import Registry

    registry = Registry.open()
    manifest = registry.verify(policy_id)
    if manifest.kind != "policy":
        raise RegistryError(f"{manifest.id} is a reward", "name a policy (p-…)")
    from learning.policy import export as to

    adapter, base = registry.path(manifest.id), weights.ensure(manifest.base, config.models)
    if form == "gguf":
        out = folder / f"{manifest.id}.gguf"
        to.write_gguf(adapter, base, out)
    else:
        out = folder / manifest.id
        to.merge(adapter, base, out, precision)
    click.echo(str(out))


def _ratings(config: Config) -> dict[str, tuple[int, float | None]]:
    """Registry id to how many of its calls were rated, and the mean."""
    from agent.records import Consent
    from agent.store import Store
    from learning.report import by_policy, outcomes

    with Store.open(config.store.url) as store:
        calls = outcomes(store.iter_sessions({Consent.KEEP, Consent.LEARN}))
    found: dict[str, tuple[int, float | None]] = {}
    for row in by_policy(calls):
        _, plus, entry_id = row.policy_id.rpartition("+")
        if plus:
            found[entry_id] = (row.rated, row.mean)
    return found


def _standing(manifest: Manifest, state: State) -> str:
    marks = {"promoted": state.promoted, "candidate": state.candidate}
    return ", ".join(name for name, entry_id in marks.items() if entry_id == manifest.id)


def _gates(manifest: Manifest) -> str:
    if not manifest.gates:
        return "none"
    passed = f"{len(manifest.gates) - len(manifest.failed)}/{len(manifest.gates)}"
    failed = ", ".join(gate.name for gate in manifest.failed)
    return f"{passed}, failed: {failed}" if failed else passed


def _as_json(
    registry: Registry,
    manifest: Manifest,
    state: State,
    ratings: dict[str, tuple[int, float | None]],
) -> dict[str, Any]:
    n, mean = ratings.get(manifest.id, (0, None))
    return {
        **manifest.model_dump(mode="json"),
        "promoted": state.promoted == manifest.id,
        "candidate": state.candidate == manifest.id,
        "deleted_sessions": list(registry.marks(manifest.id)),
        "rated_calls": n,
        "rating_mean": mean,
    }


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        import os

        return f"uid {os.getuid()}"
