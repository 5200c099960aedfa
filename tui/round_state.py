"""What is known of each round, which process runs it, and how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.errors import GeliError
from learning.rounds import Round
from tui.jobs import Job, Jobs
from tui.jobs import State as JobState
from tui.registry_view import curves

TITLE = "round"
"""What jobs that run a round are called."""
GOING_ON = "going on with "
BEGINS_S = 300.0
"""A job begins its round within this time, or not at all."""
WARM_S = 90.0
"""Files that changed so lately: somebody works on them."""


@dataclass(slots=True, frozen=True)
class Seen:
    """One round, as its folder and its jobs tell."""

    folder: Path
    round: Round | None
    """None: it cannot be read."""
    problem: str = ""
    job: Job | None = None
    """The newest job that ran it."""
    job_state: JobState | None = None
    updates: int = 0
    """Of the policy, so far."""
    trained: bool = False
    """The policy's updates are over."""
    epochs: int = 0
    strange_s: float | None = None
    """Since when its files are as they are, where something else than a job from here wrote to it
    a short while ago."""

    @property
    def id(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def runs(self) -> bool:
        """A job works on it now."""
        return self.job_state == "running"

    @property
    def unfinished(self) -> bool:
        """It can be gone on with."""
        return self.round is not None and self.round.ended is None


@dataclass(slots=True, frozen=True)
class Rounds:
    """All rounds, newest first, and the job that runs."""

    seen: tuple[Seen, ...] = ()
    job: Job | None = None
    """The running one; its round may not have begun yet."""
    last: Job | None = None
    """The newest one, however it ended."""
    last_state: JobState | None = None

    @property
    def unfinished(self) -> Seen | None:
        """The one that `geli learn round` would go on with."""
        return next((one for one in self.seen if one.unfinished), None)


def read(folder: Path, jobs: Jobs) -> Rounds:
    """Read every round and who runs it."""
    every = [job for job in jobs.all() if job.title == TITLE]
    states = {job.id: jobs.state(job) for job in every}
    found: list[tuple[Path, Round | str]] = []
    for path in sorted(folder.glob("*/round.json"), reverse=True):
        try:
            found.append((path.parent, Round.load(path.parent)))
        except GeliError as error:
            found.append((path.parent, str(error)))
    of = {}
    for job in reversed(every):  # the newest job of a round comes last and stays
        place = _folder_of(job, jobs, [(f, r) for f, r in found if isinstance(r, Round)])
        if place is not None:
            of[place] = job
    seen = []
    for place, one in found:
        if isinstance(one, str):
            seen.append(Seen(place, None, one))
            continue
        own = of.get(place)
        lines = curves(place / "policy")
        seen.append(
            Seen(
                place,
                one,
                job=own,
                job_state=states[own.id] if own is not None else None,
                updates=max((int(line["update"]) for line in lines), default=0),
                trained=(place / "policy" / "outcome.json").is_file(),
                epochs=int(one.metrics.get("reward_epochs", 0)),
                strange_s=_strange(place, jobs, own, states) if one.ended is None else None,
            )
        )
    running = next((job for job in every if states[job.id] == "running"), None)
    last = every[0] if every else None
    return Rounds(tuple(seen), running, last, states[last.id] if last else None)


def _folder_of(job: Job, jobs: Jobs, rounds: Sequence[tuple[Path, Round]]) -> Path | None:
    """The round that a job ran: the one its log names, else the first that began after it."""
    for line in jobs.tail(job, 10_000):
        if line.startswith(GOING_ON):
            name = Path(line.removeprefix(GOING_ON).strip()).name
            return next((place for place, _ in rounds if place.name == name), None)
    began = [(_later_s(r.started_at, job.started_at), place) for place, r in rounds]
    near = [(later, place) for later, place in began if 0 <= later < BEGINS_S]
    return min(near)[1] if near else None


def _later_s(at: str, than: str) -> float:
    """Seconds between two times; infinite where one is none."""
    try:
        return (datetime.fromisoformat(at) - datetime.fromisoformat(than)).total_seconds()
    except (ValueError, TypeError):
        return math.inf


def _strange(
    folder: Path, jobs: Jobs, job: Job | None, states: dict[str, JobState]
) -> float | None:
    """Seconds since a file of the round changed that none of our jobs changed, if that is lately:
    nobody can tell from here whether another terminal runs the round."""
    times = []
    for path in (folder, folder / "reward", folder / "policy", *folder.glob("*/*")):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    if not times:
        return None
    if job is not None:
        ended_at = jobs.ended_at(job)
        if states[job.id] == "running" or ended_at is None or max(times) <= ended_at + 1:
            return None
    since_s = max(time.time() - max(times), 0.0)
    return since_s if since_s < WARM_S else None
