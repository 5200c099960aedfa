"""Commands in the background: real processes that are started, ended, killed and found again."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tui import jobs
from tui.jobs import Cancelled, Commands, Job, JobError, Jobs

pytestmark = pytest.mark.unit

WAITS = "import os, sys, time; print('begun', flush=True)\nwhile not os.path.exists({go!r}): " + (
    "time.sleep(0.01)\nprint('ended')"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def fake(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """`geli` is this script; its arguments are sys.argv[1:]."""
    monkeypatch.setattr(jobs, "GELI", (sys.executable, "-c", script))


def until(condition: Callable[[], object]) -> None:
    """Wait for it; the test's own time limit ends what never comes."""
    while not condition():
        time.sleep(0.01)


def waiting(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[Jobs, Job, Path]:
    """A job that runs until the file is there."""
    go = folder.parent / "go"
    fake(monkeypatch, WAITS.format(go=str(go)))
    all_jobs = Jobs(folder)
    job = all_jobs.start("round", ["learn", "round"])
    until(lambda: "begun" in all_jobs.tail(job))
    return all_jobs, job, go


def alive(pid: int) -> bool:
    try:
        return b"\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


# --- jobs ----------------------------------------------------------------------------------------


def test_a_job_runs_to_its_end(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    all_jobs, job, go = waiting(monkeypatch, folder)
    assert all_jobs.state(job) == "running" and all_jobs.running("round") == job
    assert all_jobs.running("another") is None and all_jobs.ended_at(job) is None
    go.touch()
    until(lambda: all_jobs.state(job) != "running")
    assert all_jobs.state(job) == "done" and all_jobs.running("round") is None
    assert all_jobs.tail(job) == ["begun", "ended"] and all_jobs.ended_at(job) is not None


def test_another_review_finds_the_job(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    _, job, go = waiting(monkeypatch, folder)
    later = Jobs(folder)
    assert later.all() == [job] and later.state(job) == "running"
    go.touch()
    until(lambda: later.state(job) != "running")
    assert later.state(job) == "done"


def test_a_job_outlives_the_process_that_started_it(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = WAITS.format(go=str(go))
    code = (
        f"import sys; from pathlib import Path; from tui import jobs\n"
        f"jobs.GELI = (sys.executable, '-c', {script!r})\n"
        f"jobs.Jobs(Path({str(folder)!r})).start('round', [])"
    )
    root = Path(__file__).parents[2]
    assert os.spawnve(
        os.P_WAIT, sys.executable, [sys.executable, "-c", code],
        {**os.environ, "PYTHONPATH": str(root)},
    ) == 0  # fmt: skip
    all_jobs = Jobs(folder)
    (job,) = all_jobs.all()
    assert all_jobs.state(job) == "running"
    go.touch()
    until(lambda: all_jobs.state(job) != "running")
    assert all_jobs.state(job) == "done"


def test_a_job_that_is_cancelled_is_gone_with_its_child(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    fake(
        monkeypatch,
        "import os, time; print(os.getpid(), flush=True)\nwhile True: time.sleep(0.01)",
    )
    all_jobs = Jobs(folder)
    job = all_jobs.start("round", [])
    until(lambda: all_jobs.tail(job))
    child = int(all_jobs.tail(job)[0])
    assert alive(child)
    Jobs(folder).cancel(job)
    until(lambda: all_jobs.state(job) != "running")
    assert all_jobs.state(job) == "cancelled"
    assert not alive(child)
    all_jobs.cancel(job)  # nothing is there to be hit


def test_a_job_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    fake(monkeypatch, "import sys; sys.exit('geli: too few sessions')")
    all_jobs = Jobs(folder)
    job = all_jobs.start("round", [])
    until(lambda: all_jobs.state(job) != "running")
    assert all_jobs.state(job) == "failed"
    assert all_jobs.tail(job) == ["geli: too few sessions"]


def test_a_job_that_was_killed_is_lost(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    all_jobs, job, _ = waiting(monkeypatch, folder)
    os.killpg(job.pid, signal.SIGKILL)
    until(lambda: all_jobs.state(job) != "running")
    assert all_jobs.state(job) == "lost" and Jobs(folder).state(job) == "lost"


def test_another_process_of_that_number_is_not_the_job(folder: Path) -> None:
    folder.mkdir()
    job = Job("20261123T000000-abcd", "round", [], "2026-11-23T00:00:00+00:00", os.getpid())
    assert Jobs(folder).state(job) == "lost"
    Jobs(folder).cancel(job)  # must not hit us


def test_a_job_that_ends_between_two_looks_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    folder.mkdir()
    job = Job("20261123T000000-abcd", "round", [], "2026-11-23T00:00:00+00:00", 0)
    all_jobs = Jobs(folder)

    def ends(self: Jobs, asked: Job) -> bool:
        (folder / f"{asked.id}.rc").write_text("0")
        return False

    monkeypatch.setattr(Jobs, "_alive", ends)
    assert all_jobs.state(job) == "done"


def test_the_log_shows_what_a_terminal_would(folder: Path) -> None:
    folder.mkdir()
    job = Job("20261123T000000-abcd", "round", [], "2026-11-23T00:00:00+00:00", 0)
    log = folder / f"{job.id}.log"
    log.write_bytes(b"one\r\nten %\rhalf\rall\n\x1b[31mred\x1b[0m\x07 \xff\n")
    assert Jobs(folder).tail(job) == ["one", "all", "red  �"]
    assert Jobs(folder).tail(job, 1) == ["red  �"]
    log.write_bytes(b"")
    assert Jobs(folder).tail(job) == []
    log.unlink()
    assert Jobs(folder).tail(job) == []


def test_what_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(JobError, match="round cannot be started"):
        Jobs(file / "jobs").start("round", [])


def test_damaged_jobs_are_passed_over(folder: Path) -> None:
    folder.mkdir()
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"id": "c"}')):
        (folder / f"{name}.json").write_text(text)
    assert Jobs(folder).all() == []


def test_old_jobs_are_forgotten_and_running_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    all_jobs, running, go = waiting(monkeypatch, folder)
    monkeypatch.setattr(jobs, "KEPT", 2)
    for n in range(4):
        old = Job(f"2025010{n}T000000-abcd", "old", [], "2025-01-01T00:00:00+00:00", 0)
        (folder / f"{old.id}.rc").write_text("0")
        (folder / f"{old.id}.json").write_text(
            json.dumps({f: getattr(old, f) for f in old.__slots__})
        )
    fake(monkeypatch, "pass")
    newest = all_jobs.start("new", [])
    kept = {job.id for job in all_jobs.all()}
    assert running.id in kept and newest.id in kept
    assert "20250100T000000-abcd" not in kept and "20250101T000000-abcd" not in kept
    assert not (folder / "20250100T000000-abcd.rc").exists()
    go.touch()


# --- commands ------------------------------------------------------------------------------------


def test_a_command_gives_its_json(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "import sys, json; print('noise', file=sys.stderr); print(sys.argv[1:])")
    with pytest.raises(JobError, match="printed no JSON"):
        Commands().json(["learn", "round", "x"])
    fake(monkeypatch, "import sys, json; print(json.dumps(sys.argv[1:]))")
    assert Commands().json(["learn", "ü"]) == ["learn", "ü"]


def test_a_command_that_says_no_gives_its_problem_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(monkeypatch, "import sys; print('warning'); sys.exit('geli: no reward — train one\\n')")
    with pytest.raises(JobError) as error:
        Commands().json([])
    assert (error.value.problem, error.value.way_out) == ("no reward", "train one")
    fake(monkeypatch, "import sys; sys.exit(3)")
    with pytest.raises(JobError, match="exit code 3"):
        Commands().json([])
    monkeypatch.setattr(jobs, "GELI", ("/nowhere/geli",))
    with pytest.raises(JobError, match="cannot be started"):
        Commands().json([])


def test_only_the_command_of_that_name_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(
        monkeypatch,
        "import json, os, sys, time\nopen(sys.argv[1], 'w').close()\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.01)\nprint('1')",
    )
    commands, go = Commands(), tmp_path / "go"
    found: dict[str, object] = {}

    def run(name: str) -> None:
        try:
            found[name] = commands.json([str(tmp_path / name), str(go)], name)
        except JobError as error:
            found[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    commands.end("a")
    threads[0].join()
    assert isinstance(found["a"], Cancelled) and "b" not in found
    go.touch()
    threads[1].join()
    assert found["b"] == 1


def test_all_commands_end_with_the_review(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    fake(monkeypatch, f"import time; open({str(begun)!r}, 'w').close(); time.sleep(1000)")
    commands = Commands()
    found: list[JobError] = []

    def run() -> None:
        try:
            commands.json([])
        except JobError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(begun.exists)
    commands.end()
    thread.join()
    assert isinstance(found[0], Cancelled)
