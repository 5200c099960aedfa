"""`geli learn policy --memory`: what a larger policy holds and takes, on one card or several."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agent.config import Config

DEVICES = ((1, False), (2, False), (4, False), (2, True), (4, True))
"""How many, and whether the base lies in shards."""
PAPER_HOURS = 19.0
"""What the paper's runs took on four RTX A6000."""


def tell(name: str, config: Config, as_json: bool) -> None:
    """Print bytes by part, peaks on several devices, and seconds an update by card.

    Raises:
        TrainingError: no model whose shape is known.
    """
    from learning.policy import cost
    from learning.policy.memory import shape_of

    settings, shape = config.policy, shape_of(name)
    trained = shape.lora(settings.lora_r, settings.target_modules)
    found: dict[str, Any] = {
        "model": name,
        "parameters": shape.in_blocks + shape.elsewhere,
        "lora_parameters": trained,
        "precision": settings.precision,
        "batch": settings.batch,
        "micro_batch": settings.micro_batch,
        "tokens": [settings.history_tokens, settings.response_tokens],
        "variants": _variants(shape, config),
        "assumed": {k: getattr(cost.Reached(), k) for k in cost.Reached.__slots__},
        "seconds": _seconds(shape, config),
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(
        f"{name}: {found['parameters'] / 1e9:.2f} B weights, LoRA r={settings.lora_r} on "
        f"{', '.join(settings.target_modules)}: {trained / 1e6:.1f} M trained; "
        f"batch {settings.batch}, micro-batch {settings.micro_batch}, {settings.history_tokens} + "
        f"{settings.response_tokens} tokens"
    )
    _say_memory(found["variants"], settings.precision)
    _say_seconds(found["seconds"], config)


def _variants(shape: Any, config: Config) -> list[dict[str, Any]]:
    """Every way to hold the base, on every number of devices."""
    from learning.policy.memory import REWARDS, estimate

    out = []
    for devices, sharded in DEVICES:
        for four_bit in (False, True) if not sharded else (False,):
            for checkpointing in (False, True):
                how = {"four_bit": four_bit, "gradient_checkpointing": checkpointing}
                chosen = config.policy.model_copy(update=how)
                reward = REWARDS.get(config.reward.encoder, 0)
                parts = estimate(shape, chosen, devices, sharded=sharded, reward=reward)
                out.append(how | {"devices": devices, "sharded": sharded, "bytes": parts})
    return out


def _seconds(shape: Any, config: Config) -> list[dict[str, Any]]:
    """Of one update, by card and number of them."""
    from learning.policy import cost

    out = []
    for card in cost.CARDS:
        for devices, sharded in ((1, False), (4, False), (4, True)):
            if sharded and config.policy.four_bit:
                continue
            model = cost.Model(shape, config.policy, devices, sharded)
            took = cost.seconds(model, card, reward_tokens=config.reward.max_tokens)
            updates = int(PAPER_HOURS * 3600 / took["all"])
            out.append(
                {"card": card.name, "devices": devices, "sharded": sharded}
                | {"seconds": took, "updates_in_19_hours": updates}
            )
    return out


def _say_memory(variants: list[dict[str, Any]], precision: str) -> None:
    def column(v: dict[str, Any]) -> str:
        base = "NF4" if v["four_bit"] else precision
        return base + (" + checkpointing" if v["gradient_checkpointing"] else "")

    def rows_of(devices: int, sharded: bool) -> list[dict[str, Any]]:
        return [v for v in variants if (v["devices"], v["sharded"]) == (devices, sharded)]

    def line(what: str, key: str, rows: list[dict[str, Any]]) -> None:
        click.echo(f"{what:26}" + "".join(f"{v['bytes'][key] / 2**30:25.2f}" for v in rows))

    one = rows_of(1, False)
    click.echo(f"{'GiB on one device':26}" + "".join(f"{column(v):>25}" for v in one))
    for part in one[0]["bytes"]:
        if any(v["bytes"][part] for v in one):
            line(part, part, one)
    for devices, sharded in DEVICES[1:]:
        how = " in shards" if sharded else ""
        line(f"peak, each of {devices}{how}", "peak", rows_of(devices, sharded))


def _say_seconds(rows: list[dict[str, Any]], config: Config) -> None:
    from learning.policy.batch import PHASES
    from learning.policy.cost import Reached

    reached, settings = Reached(), config.policy
    click.echo(
        f"\n{'seconds an update':28}" + "".join(f"{p:>11}" for p in (*PHASES, "all"))
        + f"{'updates in 19 h':>18}"
    )  # fmt: skip
    for row in rows:
        name = f"{row['devices']} × {row['card']}" + (", in shards" if row["sharded"] else "")
        cells = "".join(f"{row['seconds'][p]:11.1f}" for p in (*PHASES, "all"))
        click.echo(f"{name:28}{cells}{row['updates_in_19_hours']:18,}")
    again = ", with checkpointing" if settings.gradient_checkpointing else ""
    click.echo(
        f"assumed: every prompt and reply as long as may be, {settings.ppo_epochs} passes{again}; "
        f"{reached.mfu:.0%} of the card's FLOP/s, {reached.bandwidth:.0%} of its bandwidth, "
        f"{reached.block_s * 1e3:g} ms a block at least"
    )
