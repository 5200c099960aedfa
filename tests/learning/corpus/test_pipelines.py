"""The pipeline itself on Ray, with work that fails in every way."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from learning.corpus.pipelines import Where, run
from learning.corpus.places import Place
from learning.corpus.shards import Job, Shard, Unreadable, tables
from learning.errors import DataError

pytestmark = pytest.mark.engine


class Opened:
    """Work that says which process did it; some inputs cannot be done."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def __call__(self) -> Callable[[Shard], tuple[Any, dict[str, Any]]]:
        if self.fails:
            raise DataError("the models cannot be loaded")

        def work(shard: Shard) -> tuple[Any, dict[str, Any]]:
            if shard.input == "kills its worker":
                os._exit(1)
            if shard.input == "unreadable":
                raise Unreadable("unreadable: not a video")
            if shard.input == "storage":
                raise OSError("away for a moment")
            listening = [
                connection.laddr.ip
                for process in (psutil.Process(), *psutil.Process().parents())
                if any(name in process.name() for name in ("ray", "gcs"))
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
            return pa.table({"value": [shard.content], "on": [sorted(set(listening))]}), {}

        return work


def test_each_fault_is_listed_and_the_others_are_done(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = Job("numbers", {}, Place(str(tmp_path)))
    faults = ["kills its worker", "unreadable", "storage"]
    shards = [Shard(name, "1", content=i) for i, name in enumerate([*"abcde", *faults])]
    told: list[float] = []
    ran = run(job, shards, Opened(), Where(2), told.append)
    assert (ran.shards, ran.kept, ran.made) == (8, 0, 5)
    assert {it["input"]: it["reason"] for it in ran.failed} == {
        "kills its worker": "its worker died (out of memory?)",
        "storage": "OSError: away for a moment",
    }
    assert ran.manifest is not None and not ran.manifest.complete
    assert ran.manifest.bad == [{"input": "unreadable", "reason": "unreadable: not a video"}]
    rows = [row for _, table in tables(job.out, "numbers")[1] for row in table.to_pylist()]
    assert sorted(row["value"] for row in rows) == [0, 1, 2, 3, 4]
    listening = {ip.removeprefix("::ffff:") for row in rows for ip in row["on"]}
    assert listening and all(ipaddress.ip_address(ip).is_loopback for ip in listening)
    assert told == sorted(told) and told[-1] == 7
    assert capfd.readouterr() == ("", "")
    assert not list(Path("/tmp").glob(f"geli-ray-{os.getpid()}-*"))


def test_shards_of_one_group_follow_each_other(tmp_path: Path) -> None:
    """One worker would else load another policy for every shard."""
    job = Job("groups", {}, Place(str(tmp_path)))
    shards = [Shard(f"{g}{i}", "1", content=i, group=g) for i in range(4) for g in "abc"]
    assert run(job, shards, Opened(), Where(1)).made == 12
    written = sorted(tmp_path.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    names = {job.stem(shard): shard.group for shard in shards}
    order = [names[file.stem] for file in written]
    assert sum(a != b for a, b in zip(order, order[1:], strict=False)) == 2


def test_workers_on_gpus_that_are_not_there_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = Job("numbers", {}, Place(str(tmp_path)))
    with pytest.raises(DataError, match="Ray finds no GPU here"):
        run(job, [Shard("a", "1")], Opened(), Where(1, gpus=1))


def test_workers_that_cannot_start_are_one_line(tmp_path: Path) -> None:
    job = Job("numbers", {}, Place(str(tmp_path)))
    with pytest.raises(DataError) as caught:
        run(job, [Shard("a", "1")], Opened(fails=True), Where(1))
    assert "the models cannot be loaded" in str(caught.value) and "\n" not in str(caught.value)


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    job = Job("numbers", {}, Place(str(tmp_path)))
    with pytest.raises(DataError, match="check --address"):
        run(job, [Shard("a", "1")], Opened(), Where(1, "127.0.0.1:1"))
