"""Shards on Ray Data: here without a cluster, or on one by its address; the same pipeline.

    descriptions of the shards that are left → a pool of workers, each with its models loaded once
    → one line of outcome a shard

Only descriptions and outcomes pass through Ray. A worker reads its input itself, commits its shard
itself and holds one at a time, so memory is bounded by the workers and their models whatever the
size of the corpus; Ray Data gives a worker its next shard when it has room, and restarts a worker
that died.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import secrets
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from learning.corpus.shards import Job, Manifest, Shard, Unreadable
from learning.errors import DataError
from perception.quiet import chatter_dropped

STORE_BYTES = 256 << 20
"""Ray's shared memory on this machine: only descriptions and outcomes lie in it."""
AHEAD = 2
"""Shards that a worker is given at a time: the one it is at and the next."""
TRIES = 2
"""Times that a shard is begun again after its worker died."""
ROUNDS = 2
"""Pipelines over what is left: where a whole node died, Ray now and then gives up the shards that
its workers were given, whatever `TRIES` says (seen in 2 of 5 runs)."""

CLUSTER_WANTS = (
    "check --address; a cluster with a token wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too"
)
KNOCK_S = 10.0
"""How long a cluster's address may take to answer."""

Progress = Callable[[float], None]
Work = Callable[[Shard], tuple[Any, dict[str, Any]]]
"""From a shard to its table and what else is known of it; raises `Unreadable`."""


@dataclass(frozen=True)
class Where:
    """What a job runs on."""

    workers: int
    """Shards at once, a core each."""
    address: str | None = None
    """Of a Ray cluster; None starts Ray here for the time of the job."""
    gpus: int = 0
    """That a worker has to itself."""


@dataclass
class Ran:
    """What one run did."""

    shards: int
    kept: int
    """Finished by an earlier run, or by another at the same time."""
    made: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    """`input` and `reason` of what another run may do better: storage that failed, a worker that
    died."""
    manifest: Manifest | None = None
    seconds: float = 0.0
    cpu_s: float = 0.0
    """Of the workers, for the shards made."""


def run(
    job: Job,
    shards: Sequence[Shard],
    open_work: Callable[[], Work],
    where: Where,
    on_progress: Progress = lambda _: None,
) -> Ran:
    """Do what is left of a job.

    Args:
        job: what, and where to.
        shards: all of it, done or not.
        open_work: loads a worker's models; called once in each worker.
        where: how many at once, and on what.
        on_progress: told the weight of all shards that are done.

    Raises:
        DataError: the folder holds something else, the storage fails, Ray is not there or its
            workers cannot start.
    """
    started = time.perf_counter()
    known = job.begin()
    done, bad = job.state()
    left = [s for s in shards if job.stem(s) not in done and job.stem(s) not in bad]
    ran = Ran(len(shards), sum(job.stem(s) in done for s in shards))
    weight = sum(s.weight for s in shards) - sum(s.weight for s in left)
    on_progress(weight)
    if left:
        # Two runs on one folder begin at different ends of it, group by group.
        chance = random.SystemRandom()
        chance.shuffle(left)
        order = {shard.group: chance.random() for shard in left}
        left.sort(key=lambda shard: order[shard.group])
        waiting = {job.stem(shard): shard for shard in left}
        for outcome in _outcomes(job, left, open_work, where):
            shard = waiting.pop(outcome["stem"])
            weight += shard.weight
            on_progress(weight)
            ran.made += outcome["state"] == "made"
            ran.kept += outcome["state"] == "kept"
            ran.cpu_s += outcome["cpu_s"]
            if outcome["state"] == "failed":
                ran.failed.append({"input": shard.input, "reason": outcome["reason"]})
        ran.failed += [
            {"input": shard.input, "reason": "its worker died (out of memory?)"}
            for shard in waiting.values()
        ]
    ran.manifest = job.finish(shards, known)
    ran.seconds = time.perf_counter() - started
    return ran


class Worker:
    """One of the pool: shard descriptions in, outcomes out."""

    def __init__(self, job: Job, open_work: Callable[[], Work]) -> None:
        from agent.threads import wait_briefly

        wait_briefly()
        self.job = job
        self.work = open_work()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(**json.loads(row["shard"]))
        began = time.process_time()
        try:
            state, reason = self._do(shard), ""
        except Exception as error:
            # One shard's fault is listed and the others go on; nothing of it was committed.
            line = (str(error).strip().splitlines() or [""])[0][:200]
            state, reason = "failed", f"{type(error).__name__}: {line}"
        cpu_s = time.process_time() - began
        outcome = {"stem": self.job.stem(shard), "state": state, "reason": reason, "cpu_s": cpu_s}
        return {"outcome": json.dumps(outcome)}

    def _do(self, shard: Shard) -> str:
        if self.job.has(shard):
            return "kept"
        began = time.process_time()
        try:
            table, facts = self.work(shard)
        except Unreadable as error:
            self.job.refuse(shard, str(error))
            return "bad"
        spent = round(time.process_time() - began, 3)
        self.job.commit(shard, table, {**facts, "cpu_s": spent})
        return "made"


def _outcomes(
    job: Job, left: Sequence[Shard], open_work: Callable[[], Work], where: Where
) -> Iterator[dict[str, Any]]:
    """Run the pipeline; outcomes as they come, in any order."""
    workers = min(where.workers, len(left))
    with _ray(where.address, workers) as ray:
        if where.gpus and where.address is None:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            if not gpus:
                raise DataError("device = 'cuda': Ray finds no GPU here", "device = 'cpu'")
            workers = min(workers, gpus // where.gpus)
        for _ in range(ROUNDS):
            seen = set()
            for outcome in _round(ray, job, left, open_work, workers, where.gpus):
                seen.add(outcome["stem"])
                yield outcome
            left = [shard for shard in left if job.stem(shard) not in seen]
            if not left:
                return


def _round(
    ray: Any,
    job: Job,
    left: Sequence[Shard],
    open_work: Callable[[], Work],
    workers: int,
    gpus: int,
) -> Iterator[dict[str, Any]]:
    """Each shard once; those whose worker died may be missing."""
    rows = [{"shard": json.dumps(asdict(shard))} for shard in left]
    size = min(workers, len(left))
    pool = ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=AHEAD)
    # One shard a block: what a killed worker loses is the shard it was at.
    pipeline = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_args=(job, open_work),
        compute=pool,
        num_cpus=1,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=TRIES,
    )
    try:
        for row in pipeline.iter_rows():
            yield json.loads(row["outcome"])
    except (ray.exceptions.RayError, RuntimeError) as error:
        said = [line for line in str(error).strip().splitlines() if line.strip()]
        line = (said or [type(error).__name__])[-1].strip()[:300]
        raise DataError(f"Ray's workers cannot go on: {line}") from None


@contextlib.contextmanager
def _ray(address: str | None, workers: int) -> Iterator[Any]:
    """Ray for the time of the block: of this process alone, or a cluster's.

    The own one listens on 127.0.0.1, has no dashboard, tells nobody that it is used, and leaves
    no file behind.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ side writes to stderr
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # that is: 127.0.0.1
        # Ray would make one for all runs, and leave it in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.data
        from ray.util.annotations import RayDeprecationWarning
    except ImportError:
        raise DataError("corpus jobs need Ray", "pip install 'geli-agent[corpus]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with contextlib.ExitStack() as stack:
        # Ray tells of dead workers on stdout, where our result goes; the result names them too.
        stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", RayDeprecationWarning)
        folder = stack.enter_context(_short_folder()) if address is None else None
        stack.callback(ray.shutdown)
        try:
            if address is not None:
                _knock(address)
            with chatter_dropped():
                if address is None:
                    ray.init(
                        num_cpus=workers,
                        include_dashboard=False,
                        object_store_memory=STORE_BYTES,
                        _temp_dir=folder,
                        **quiet,
                    )
                else:
                    ray.init(address=address, **quiet)
        except (ray.exceptions.RayError, ValueError, RuntimeError, OSError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise DataError(f"Ray cannot start: {line}", CLUSTER_WANTS * bool(address)) from None
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1
        yield ray


def _knock(address: str) -> None:
    """Whether anybody is there: Ray itself would ask for minutes.

    Raises:
        OSError: nobody.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():  # not `auto`
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """Ray's own files, gone when it has stopped; those of a run that was killed go now.

    Not below $TMPDIR: names of sockets, deep in it, must stay under a hundred characters.
    """
    for left in Path("/tmp").glob("geli-ray-*-*"):
        try:
            os.kill(int(left.name.split("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (PermissionError, ValueError):
            continue
    folder = tempfile.mkdtemp(prefix=f"geli-ray-{os.getpid()}-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
