"""A job on a real Ray cluster of two nodes, one of which dies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from learning.corpus.places import Place
from learning.corpus.shards import tables
from tests.learning.corpus import runs
from tests.learning.corpus.cluster import Cluster
from tests.learning.corpus.waiting_job import INPUTS

pytestmark = pytest.mark.engine

WAIT_S = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster([1, 1])
    yield made
    made.close()


def test_a_cluster_that_is_not_given_its_token_is_one_line(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"not opened")
    for name, value in (cluster.environment | {"RAY_AUTH_TOKEN": "0" * 64}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", "2")  # at a second each; twenty by default
    args = ("affect", str(tmp_path), str(tmp_path / "out"), "--address", cluster.address)
    code, stdout, stderr = runs.finished(*args)
    assert (code, stdout) == (2, "") and stderr.count("\n") == 1, stderr
    assert "Ray cannot start" in stderr and "RAY_AUTH_TOKEN" in stderr


def test_a_job_outlives_a_node_that_dies_in_the_middle_of_a_shard(
    cluster: Cluster, tmp_path: Path
) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    job = subprocess.Popen(
        [sys.executable, "-m", "tests.learning.corpus.waiting_job", notes, out, cluster.address],
        env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + WAIT_S
        while len(begun(notes)) < 2:
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        killed = cluster.kill(1)
        (notes / "go").touch()
        stdout, stderr = job.communicate(timeout=2 * WAIT_S)
    finally:
        if job.poll() is None:
            runs.kill(job.pid)
    assert stderr == ""
    said = json.loads(stdout)
    # A shard is kept where it was written and only the word of it was lost.
    assert said["complete"] and said["failed"] == []
    assert said["made"] + said["kept"] == len(INPUTS)
    found = tables(Place(str(out)), "numbers")[1]
    rows = [row["value"] for _, table in found for row in table.to_pylist()]
    assert sorted(rows) == list(range(len(INPUTS)))
    # The shard that the dead node was at was begun again, by another worker; no other was.
    (lost,) = [name for name, pid in begun(notes) if pid in killed]
    again = [name for name, pid in begun(notes) if pid not in killed]
    assert lost in again and sorted(again) == sorted(INPUTS)


def begun(notes: Path) -> list[tuple[str, int]]:
    """(input, pid), whether it was ended or not."""
    names = [file.name.split(".") for file in notes.iterdir() if "." in file.name]
    return sorted((name, int(pid)) for name, pid in names)
