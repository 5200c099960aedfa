"""`geli review` on many sessions: seconds to the first screen, memory, and what it imports.

Run by `geli bench review`. The sessions are made up; the program runs in a pseudo-terminal of its
own, so that what is timed is the whole of it: the interpreter, the imports, the first screen.
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from agent.records import AffectWindow, Consent, EndedHow, Session, Turn
from agent.schema import session_row, sessions, turn_row, turns, window_row, windows
from agent.store import Filter, Store
from agent.store_rows import count_contents

HEAVY = ("torch", "aiortc", "transformers", "av", "cv2", "onnxruntime", "faster_whisper", "trl")
SIZE = (45, 140)
WORDS = "the day was long and I walked my dog to work before we had a cup of tea in town".split()
QUIT = b"\x11"
PROGRAM = """\
import atexit, sys
atexit.register(lambda: open({path!r}, "w").write("\\n".join(sys.modules)))
from agent.cli import main
main()
"""


def made_up(n: int, seed: int = 0) -> Session:
    """One session of the n-th minute: 6 to 30 turns, a window every two seconds."""
    rng = random.Random(f"{seed} {n}")
    count = rng.randint(3, 15) * 2
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=37 * n)

    def said() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(4, 18)))

    talk = [
        Turn(
            index=i,
            speaker="agent" if i % 2 else "user",
            start_s=6.0 * i,
            end_s=6.0 * i + 5,
            text=said(),
            kind="reply" if i % 2 else "utterance",
            li=rng.choice((0, 1, None)) if i % 2 else None,
            interrupted=bool(i % 2) and rng.random() < 0.05,
        )
        for i in range(count)
    ]
    seen = [
        AffectWindow(
            index=i,
            start_s=2.0 * i,
            end_s=2.0 * i + 2,
            face_found=(face := rng.random() < 0.8),
            coverage=1.0 if face else 0.0,
            positive=rng.random() < 0.4 if face else None,
            classifier="made-up",
        )
        for i in range(3 * count)
    ]
    return Session(
        id=f"{start:%Y%m%dT%H%M%S}-{n:08x}",
        started_at=start,
        ended_at=start + timedelta(seconds=6 * count),
        ended_how=rng.choice(list(EndedHow)),
        consent=rng.choice((Consent.KEEP, Consent.LEARN)),
        overall_affect=rng.choice((None, float(rng.randint(0, 100)))),
        policy_id=rng.choice(("smollm2-135m-instruct", "smollm2-135m-instruct+p-1")),
        excluded=rng.random() < 0.03,
        turns=talk,
        windows=seen,
    )


def fill(store: Store, n: int) -> None:
    """Write `n` made-up sessions."""
    for first in range(0, n, 500):
        batch = [made_up(i) for i in range(first, min(first + 500, n))]
        with store.writing() as connection:
            connection.execute(sa.insert(sessions), [session_row(one, None) for one in batch])
            said = [turn_row(one.id, turn) for one in batch for turn in one.turns]
            connection.execute(sa.insert(turns), said)
            seen = [window_row(one.id, window) for one in batch for window in one.windows]
            connection.execute(sa.insert(windows), seen)
            for one in batch:
                count_contents(connection, one.id)


def measure(n: int = 10_000, repeats: int = 5) -> dict[str, Any]:
    """Start the review on `n` sessions and quit it again, `repeats` times."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/s.sqlite3"
        with Store.open(url) as store:
            fill(store, n)
            queries = _queries(store)
        modules = Path(folder) / "modules"
        program = [sys.executable, "-c", PROGRAM.format(path=str(modules))]
        runs = [
            _start([*program, "review", "--set", f"store.url={url}"], f"{n:,} sessions", folder)
            for _ in range(repeats)
        ]
        loaded = {name.partition(".")[0] for name in modules.read_text().splitlines()}
    return {
        "sessions": n,
        "first_screen_s": [round(seconds, 3) for seconds, _ in runs],
        "first_screen_median_s": statistics.median(seconds for seconds, _ in runs),
        "memory_mib": max(memory for _, memory in runs),
        "heavy_modules": sorted(loaded & set(HEAVY)),
        "modules": len(loaded),
        "queries_ms": queries,
    }


def _queries(store: Store) -> dict[str, float]:
    """What the list asks of the store, in milliseconds."""

    def took(what: Any) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            what()
            times.append(1000 * (time.perf_counter() - start))
        return round(statistics.median(times), 1)

    ids = store.ids()
    return {
        "ids, newest first": took(store.ids),
        "ids by positive share": took(lambda: store.ids(order="positive")),
        "a page of 128 rows": took(lambda: store.summaries(ids[:128])),
        "transcripts with two words": took(lambda: store.ids(Filter(says="walked town"))),
        "has anything changed": took(store.pulse),
        "one session": took(lambda: store.get(ids[0])),
    }


def _start(command: Sequence[str], wanted: str, data: str) -> tuple[float, float]:
    """Seconds until the terminal shows `wanted`, and the memory then held, MiB."""
    start = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(GELI_DATA=data, TERM="xterm-256color", COLUMNS="", LINES="")
        os.execvp(command[0], list(command))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    shown = b""
    try:
        while wanted.encode() not in shown:
            if not select.select([terminal], [], [], 60)[0]:
                raise TimeoutError(f"no {wanted!r} on the screen after a minute")
            shown += os.read(terminal, 65536)
        seconds = time.perf_counter() - start
        status = Path(f"/proc/{pid}/status").read_text()
        memory = int(status.split("VmRSS:")[1].split()[0]) / 1024
        os.write(terminal, QUIT)
        while True:
            try:
                if not os.read(terminal, 65536):
                    break
            except OSError:  # the terminal is closed: it has quit
                break
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return seconds, memory
