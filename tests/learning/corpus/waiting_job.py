"""A job whose shards wait to be let go, as a program: NOTES OUT ADDRESS.

Each shard notes `<input>.<pid>` in NOTES when it is begun, and ends once `go` is there. Prints what
was made, kept and failed, and whether the job is complete.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from learning.corpus.pipelines import Where, run
from learning.corpus.places import Place
from learning.corpus.shards import Job, Shard

INPUTS = "abcdefgh"


class Opened:
    """The work, for Ray."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __call__(self) -> Callable[[Shard], tuple[Any, dict[str, Any]]]:
        def work(shard: Shard) -> tuple[Any, dict[str, Any]]:
            (self.notes / f"{shard.input}.{os.getpid()}").touch()
            while not (self.notes / "go").exists():
                time.sleep(0.02)
            return pa.table({"value": [shard.content]}), {}

        return work


def main(notes: str, out: str, address: str) -> None:
    shards = [Shard(name, "1", content=i) for i, name in enumerate(INPUTS)]
    job = Job("numbers", {}, Place(out))
    ran = run(job, shards, Opened(Path(notes)), Where(2, address))
    assert ran.manifest is not None
    said = {"made": ran.made, "kept": ran.kept, "failed": ran.failed}
    print(json.dumps(said | {"complete": ran.manifest.complete}))


if __name__ == "__main__":
    # Under its own name, by which workers find it.
    from tests.learning.corpus import waiting_job

    waiting_job.main(*sys.argv[1:])
