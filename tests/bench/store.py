"""The session store on SQLite and on PostgreSQL: how long a call waits for a turn, how many turns a
second there are with several writers, and what a list of many sessions takes.

Run by `geli bench store`. PostgreSQL is a server of its own with durable writes, as a real one.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from agent.errors import GeliError
from agent.records import AffectWindow, Consent, EndedHow, Session, Turn
from agent.store import Store
from tests import postgres
from tests.bench.review import WORDS, _queries, fill

CALLS = 9
"""Of a worker, as in configs/deploy/SCALING.md."""
SECONDS = 20
TURN_S = 5


def measure(n: int = 10_000, turns: int = 200, writers: int = 8) -> dict[str, Any]:
    """Both databases with `n` sessions in them; `turns` turns a writer."""
    programs = postgres.programs()
    if programs is None:
        raise GeliError("PostgreSQL is not installed", "apt-get install postgresql")
    with _data():
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            found["sqlite"] = _one(f"sqlite:///{folder}/s.sqlite3", n, turns, writers)
        server = postgres.Server(programs, durable=True)
        try:
            found["postgresql"] = _one(server.url, n, turns, writers)
        finally:
            server.close()
        return {"sessions": n, "turns": turns, "writers": writers, **found}


@contextmanager
def _data() -> Iterator[None]:
    """A data directory of its own: journals come there."""
    before = os.environ.get("GELI_DATA")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GELI_DATA"] = folder
        try:
            yield
        finally:
            del os.environ["GELI_DATA"]
            if before is not None:
                os.environ["GELI_DATA"] = before


def _one(url: str, n: int, turns: int, writers: int) -> dict[str, Any]:
    with Store.open(url) as store:
        start = time.perf_counter()
        fill(store, n)
        out: dict[str, Any] = {"fill_s": round(time.perf_counter() - start, 1)}
        out["turn_ms"] = _spread(_hold(store, "alone", turns))
        start = time.perf_counter()
        with ThreadPoolExecutor(writers) as pool:
            waits = list(pool.map(lambda w: _hold(store, f"w{w}", turns), range(writers)))
        took_s = time.perf_counter() - start
        out["turn_ms_among_writers"] = _spread([ms for one in waits for ms in one])
        out["turns_a_second"] = round(writers * turns / took_s, 1)
        for how, now in (("each", True), ("together", False)):
            spent = _calls(url, f"{how}-1", 1, now)
            among = _calls(url, f"{how}-{writers}", writers, now)
            out[f"second_of_calls_ms_{how}"] = _spread(spent)
            out[f"calls_carried_{how}"] = round(1e3 * CALLS * writers / statistics.mean(among), 0)
        return out | {"queries_ms": _queries(store)}


def _hold(store: Store, name: str, turns: int) -> list[float]:
    """One call's turns; milliseconds that each took to be durable."""
    log = store.open_session(Session(id=f"bench-{name}", consent=Consent.LEARN))
    waits = []
    for index in range(turns):
        turn = Turn(
            index=index,
            speaker="agent" if index % 2 else "user",
            start_s=3.0 * index,
            end_s=3.0 * index + 2,
            text=" ".join(WORDS),
            kind="reply" if index % 2 else "utterance",
        )
        start = time.perf_counter()
        log.add_turn(turn)
        waits.append(1000 * (time.perf_counter() - start))
    log.end(EndedHow.HUNG_UP, datetime.now(UTC))
    return waits


def _calls(url: str, name: str, writers: int, now: bool) -> list[float]:
    """`SECONDS` seconds of `CALLS` calls in each of `writers` workers, as fast as the store lets
    them: every second of each call a window closes, every fifth a turn ends, and a label follows.
    Milliseconds that a worker's second took; `now`: each write on its own."""

    def worker(number: int) -> list[float]:
        with Store.open(url, busy_timeout_s=60) as store:  # who waits for SQLite has no turn
            made = [Session(id=f"{name}-{number}-{k}", consent=Consent.LEARN) for k in range(CALLS)]
            logs = [store.open_session(one) for one in made]
            waits = []
            for second in range(SECONDS):
                start = time.perf_counter()
                for k, log in enumerate(logs):
                    index, phase = divmod(second + k, TURN_S)
                    turn = Turn(
                        index=index,
                        speaker="agent",
                        start_s=float(second),
                        end_s=second + 2.0,
                        text=" ".join(WORDS),
                        kind="reply",
                    )
                    if phase == 0:
                        log.add_turn(turn)
                    window = AffectWindow(
                        index=second,
                        start_s=float(second),
                        end_s=second + 2.0,
                        face_found=True,
                        coverage=1.0,
                        probabilities={"happy": 0.9, "neutral": 0.1},
                        positive=True,
                        classifier="mini-xception-fer",
                    )
                    log.add_windows([window], now=now)
                    if phase == 2 and second >= 2:
                        log.update_turn(turn.model_copy(update={"li": 1}), now=now)
                store.later.flush()
                waits.append(1000 * (time.perf_counter() - start))
            for log in logs:
                log.end(EndedHow.HUNG_UP, datetime.now(UTC))
        return waits

    with ThreadPoolExecutor(writers) as pool:
        return [ms for one in pool.map(worker, range(writers)) for ms in one]


def _spread(ms: list[float]) -> dict[str, float]:
    ordered = sorted(ms)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(0.95 * len(ordered))], 2),
        "n": len(ordered),
    }
