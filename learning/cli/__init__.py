"""`geli learn`: each subcommand in a file of its own, imported when it is called."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import click

from agent.threads import wait_briefly
from learning.processes import many, told_once

COMMANDS = {
    "data": "what a source holds: counts, lengths, ratings, label coverage",
    "table": "the paper's Table 3 on a source: every decomposition and shaping",
    "reward": "train one reward function and keep it in the registry",
    "unroll": "the reward of each turn of one dialogue (the paper's Fig. 2)",
    "policy": "adapt the policy to a reward by LoRA and reinforcement learning",
    "compare": "policies side by side on held-out histories (the paper's Table 2)",
    "round": "from rated sessions to the next policy: reward, gates, policy, gates, candidate",
    "policies": "list, show, promote, roll back and export policies",
    "report": "what people's ratings say of the live policies",
    "simulate": "the closed loop with simulated users, before and after",
    "corpus": "jobs over a whole corpus, in shards: affect, embeddings, replies",
}

SHARED = ("reward", "policy")
"""Commands that may run in several processes."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        if many() > 1 and name not in SHARED:
            shared = " and ".join(SHARED)
            raise click.UsageError(f"'{name}' runs in one process; {shared} run in several")
        command: click.Command = importlib.import_module(f"learning.cli.{name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with told_once():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy)
def command() -> None:
    """Train rewards and policies from sessions, compare and promote them."""
    wait_briefly()
    # PEFT asks transformers for a name that will change; nobody who learns can act on it.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
