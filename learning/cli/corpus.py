"""`geli learn corpus`: jobs over a whole corpus, on this machine or on a Ray cluster."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.config import Config
    from learning.corpus.pipelines import Ran, Where, Work
    from learning.corpus.shards import Job, Shard

LISTED = 20
"""Inputs that a person is told of by name; the manifest has all."""


@click.group()
def command() -> None:
    """Jobs over a whole corpus, in shards.

    A killed job goes on where it was: finished shards are never done again, and several runs may
    share one OUT. OUT is a folder or a URL (s3://, gs://, …).

    S3 takes its keys from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and options from the URL:
    s3://bucket/a?region=NAME, or for another server ?endpoint_override=HOST:PORT&scheme=http.
    """


def running(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--workers`, `--address` and `--json`; the function gets `where` and `as_json`."""

    @click.option("--workers", type=click.IntRange(1), help="shards at once [all cores here]")
    @click.option("--address", metavar="RAY", help="a Ray cluster; without, no cluster is needed")
    @click.option("--json", "as_json", is_flag=True, help="one JSON object")
    @functools.wraps(function)
    def wrapper(*args: Any, workers: int | None, address: str | None, **kwargs: Any) -> Any:
        from learning.corpus.pipelines import Where

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return function(*args, where=Where(workers or cores or 1, address), **kwargs)

    return wrapper


@command.command()
@click.argument("source")
@click.argument("out")
@running
@configured
def affect(config: Config, source: str, out: str, where: Where, as_json: bool) -> None:
    """Windows of facial affect of every video in SOURCE, a shard a video.

    SOURCE is a folder or a URL; candor:DIR takes each participant's own video of that corpus.
    """
    from learning.corpus.affect import affect_job

    job, shards, work = affect_job(source, out, config)
    _show(job, _run(job, shards, work, where), "windows", as_json)


@command.command()
@click.argument("source")
@click.argument("out")
@running
@configured
def embeddings(config: Config, source: str, out: str, where: Where, as_json: bool) -> None:
    """Vectors of every distinct utterance of SOURCE by the encoder of [reward].

    Ends with taking them over to this machine's cache: 'geli learn table' and 'reward' then read
    nothing anew. On another machine the same command takes over what is in OUT. SOURCE is
    candor:DIR, chitchat or simulated:SEED.
    """
    from agent.weights import cache_dir
    from learning.corpus.embeddings import embeddings_job, fill_cache

    _kept(source)
    job, shards, work = embeddings_job(source, out, config)
    ran = _run(job, shards, work, _on(where, config.reward.device))
    added = fill_cache(job.out, cache_dir(config.models) / "features")
    _show(job, ran, "vectors", as_json, {"new_in_cache": added})


@command.command()
@click.argument("source")
@click.argument("out")
@click.option("--policies", metavar="LIST", required=True, help="as of 'geli learn compare'")
@click.option("--reward", metavar="ID|FOLDER", required=True, help="what will score the replies")
@click.option("--histories", "limit", type=click.IntRange(2), default=100, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="of all that is drawn")
@running
@configured
def replies(
    config: Config,
    source: str,
    out: str,
    policies: str,
    reward: str,
    limit: int,
    seed: int,
    where: Where,
    as_json: bool,
) -> None:
    """What policies answer to held-out histories of SOURCE, for a comparison.

    'geli learn compare --replies OUT' with the same options then writes none itself.
    """
    from learning.compare import replies as asking
    from learning.corpus.replies import replies_job
    from learning.data import load
    from learning.registry import Registry

    _kept(source)
    registry = Registry.open()
    chosen = asking.parse(policies, registry)
    asked, _ = asking.drawn(load(source, config), reward, registry, seed, limit)
    job, shards, work = replies_job(chosen, asked, out, config, seed)
    _show(job, _run(job, shards, work, _on(where, config.policy.device)), "replies", as_json)


def _kept(source: str) -> None:
    """Refuse what may not be kept."""
    from learning.errors import DataError

    if source.partition(":")[0] == "store":
        raise DataError(
            f"{source}: corpus jobs keep what they make, and nothing of a deleted session may stay",
            "'geli learn table', 'reward' and 'compare' read the store themselves",
        )


def _on(where: Where, device: str) -> Where:
    """A GPU for each worker where the work is done on one."""
    return where if device == "cpu" else replace(where, gpus=1)


def _run(job: Job, shards: Sequence[Shard], work: Callable[[], Work], where: Where) -> Ran:
    from rich.console import Console

    from agent.cli.progress import bar
    from learning.corpus.pipelines import run

    whole = sum(shard.weight for shard in shards)
    with bar(f"{job.kind}: {len(shards)} shards", whole, Console(stderr=True)) as progress:
        return run(job, shards, work, where, progress)


def _show(
    job: Job, ran: Ran, what: str, as_json: bool, more: Mapping[str, int] = MappingProxyType({})
) -> None:
    """The result; exit code 2 where another run is needed."""
    from learning.errors import DataError

    manifest = ran.manifest
    assert manifest is not None
    rows = sum(shard["rows"] for shard in manifest.shards)
    if as_json:
        found = {
            "job": job.kind, "out": str(job.out), "digest": job.digest, "shards": ran.shards,
            "kept": ran.kept, "made": ran.made, "rows": rows, "bad": manifest.bad,
            "failed": ran.failed, "complete": manifest.complete,
            "seconds": round(ran.seconds, 1), "cpu_s": round(ran.cpu_s, 1), **more,
        }  # fmt: skip
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        click.echo(
            f"{job.kind}: {ran.shards} shards, {ran.kept} kept, {ran.made} made, "
            f"{len(manifest.bad)} not readable; {rows} {what} in {job.out}; "
            f"{ran.seconds:.1f} s, {ran.cpu_s:.1f} s of CPU"
            + "".join(f"; {n} {name.replace('_', ' ')}" for name, n in more.items())
        )
        for mark, listed in (("skipped", manifest.bad), ("failed", ran.failed)):
            for it in listed[:LISTED]:
                reason = it["reason"].removeprefix(f"{it['input']}: ")
                click.echo(f"{mark} {it['input']}: {reason}")
            if len(listed) > LISTED:
                click.echo(f"{mark} {len(listed) - LISTED} more")
    if ran.failed:
        raise DataError(
            f"{len(ran.failed)} of {ran.shards} shards failed: {ran.failed[0]['reason']}",
            "run it again: what is done is kept",
        )
