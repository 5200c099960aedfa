"""`geli call --workers N`: a parent that holds the address and looks after N workers.

Each worker is a fresh process (spawned, not forked: threads and models do not survive a fork) that
loads its own models and serves the same socket. One that dies is replaced, the later the sooner it
died, and its sessions are closed as crashed; one that was drained by a SIGTERM of its own is
replaced, too, which renews them one by one. uvicorn's own supervisor has no back-off, kills what
loads for long, and knows no draining.

A worker ends when its parent does: their pipe breaks.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from agent import leases
from agent.config import Config
from agent.errors import GeliError, StoreError
from agent.store import Store

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
STEADY_S = 60.0
"""A worker that lived this long is no reason to wait longer for the next."""
METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
END_S = 20.0
"""After a signal, beyond what draining takes: then a worker is killed."""

log_ = logging.getLogger("geli.workers")
context = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class Slot:
    """The place of one worker."""

    index: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    began: float = 0.0
    served: bool = False
    """It, or one before it, came so far."""
    died: int = 0
    """How often in a row it died early."""
    start_at: float = 0.0
    """When the next is started; for a slot without a process."""


class Workers:
    """Starts and replaces workers until a signal.

    Args:
        config: of every worker.
        listening: the public socket.
        store: to close what dead workers left.
        opened: called when the first worker serves.
        tell: takes lines for whoever started the program.
        metrics: the socket for `/metrics` alone, if there is one.
    """

    def __init__(
        self,
        config: Config,
        listening: socket.socket,
        store: Store,
        opened: Callable[[], None],
        tell: Callable[[str], None],
        metrics: socket.socket | None = None,
    ) -> None:
        server = config.server
        # Without a key of the operator's, one for the workers of this machine alone.
        key = server.cluster_key or secrets.token_urlsafe(32)
        own = server.model_copy(update={"cluster_key": key})
        self._config = config.model_copy(update={"server": own})
        self._listening = listening
        self._metrics = metrics
        self._store = store
        self._opened = opened
        self._tell = tell
        self._slots = [Slot(index) for index in range(server.workers)]
        self._signals: list[int] = []
        self._ending_by: float | None = None
        self._problem: str | None = None
        self._served = False
        self._counts: str | None = None

    def run(self) -> None:
        """Serve until a signal has ended all workers.

        Raises:
            GeliError: a worker could not even begin (a model that cannot be loaded).
        """
        with self._counted(), self._woken() as wake:
            while True:
                self._heed()
                if self._ending_by is None:
                    self._start_due()
                elif all(slot.process is None for slot in self._slots):
                    break
                self._wait(wake)
        if self._problem is not None:
            raise GeliError(self._problem)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """A folder in which the workers keep their metrics, so that each can tell of all."""
        if not self._config.telemetry.metrics:
            yield
            return
        with tempfile.TemporaryDirectory(prefix="geli-metrics-") as folder:
            os.environ[METRICS_DIR] = self._counts = folder
            try:
                yield
            finally:
                del os.environ[METRICS_DIR]

    # --- signals ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _woken(self) -> Iterator[int]:
        """Signals are noted, and wake the one who waits."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        old_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        numbers = (signal.SIGINT, signal.SIGTERM)
        old = [signal.signal(n, lambda number, _: self._signals.append(number)) for n in numbers]
        try:
            yield read
        finally:
            for number, handler in zip(numbers, old, strict=True):
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)
            os.close(read)
            os.close(write)

    def _heed(self) -> None:
        """Hand signals on: the first SIGTERM drains, anything more ends at once."""
        while self._signals:
            number = self._signals.pop(0)
            first = self._ending_by is None
            grace_s = self._config.server.drain_s if number == signal.SIGTERM and first else 0.0
            self._ending_by = time.monotonic() + grace_s + END_S
            self._send(number if first else signal.SIGINT)

    def _send(self, number: int) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slot.process.pid, number)

    # --- workers ------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and time.monotonic() >= slot.start_at:
                self._start(slot)

    def _start(self, slot: Slot) -> None:
        ours, theirs = context.Pipe()
        slot.process = context.Process(
            target=work,
            args=(self._config, self._listening, slot.index, theirs, self._metrics),
            name=f"geli-worker-{slot.index}",
        )
        slot.process.start()
        theirs.close()
        slot.pipe, slot.began = ours, time.monotonic()
        log_.info("worker %d started, process %d", slot.index, slot.process.pid)

    def _wait(self, wake: int) -> None:
        """Until something happens: a word of a worker, its end, a signal, a start that is due."""
        now = time.monotonic()
        running = [slot for slot in self._slots if slot.process is not None]
        due = [slot.start_at - now for slot in self._slots if slot.process is None]
        if self._ending_by is not None:
            due = [self._ending_by - now]
        heard: list[Any] = [wake]
        heard += [slot.pipe for slot in running if slot.pipe is not None]
        heard += [slot.process.sentinel for slot in running if slot.process is not None]
        found = wait(heard, max(0.0, min(due)) if due else None)
        if wake in found:
            os.read(wake, 4096)
        for slot in running:
            if slot.pipe in found:
                self._listen(slot)
            if slot.process is not None and slot.process.sentinel in found:
                self._ended(slot)
        if self._ending_by is not None and time.monotonic() > self._ending_by:
            log_.error("workers that do not end are killed")
            self._send(signal.SIGKILL)
            self._ending_by = time.monotonic() + END_S

    def _listen(self, slot: Slot) -> None:
        assert slot.pipe is not None
        try:
            word, said = slot.pipe.recv()
        except (EOFError, OSError):
            slot.pipe.close()
            slot.pipe = None
            return
        if word == "ready":
            slot.served = True
            log_.info("worker %d serves", slot.index)
            if not self._served:
                self._served = True
                self._opened()
        elif not slot.served and self._ending_by is None:
            # It could not even begin: a mistake of whoever started the program.
            self._problem = said
            self._signals.append(signal.SIGINT)
        else:
            log_.error("worker %d: %s", slot.index, said)

    def _ended(self, slot: Slot) -> None:
        process = slot.process
        assert process is not None
        if slot.pipe is not None and slot.pipe.poll():
            self._listen(slot)
        process.join()
        code, lived_s = process.exitcode, time.monotonic() - slot.began
        if self._counts is not None and process.pid is not None:
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(process.pid, self._counts)  # type: ignore[no-untyped-call]
        process.close()
        slot.process = None
        if slot.pipe is not None:
            slot.pipe.close()
            slot.pipe = None
        if code == 0:
            log_.info("worker %d ended", slot.index)
            slot.died, slot.start_at = 0, 0.0
            return
        slot.died = 1 if lived_s > STEADY_S else slot.died + 1
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (slot.died - 1))
        slot.start_at = time.monotonic() + wait_s
        how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
        if self._ending_by is None:
            log_.error("worker %d died %s; the next in %.0f s", slot.index, how, wait_s)
        self._clean()

    def _clean(self) -> None:
        """Close what a dead worker left open."""
        try:
            for session_id in self._store.close_crashed(self._config.labels):
                self._tell(f"closed session {session_id}, which a crash left open")
            leases.forget_dead(self._store)
        except StoreError as error:
            log_.error("sessions of a dead worker stay open for now: %s", error)


def work(
    config: Config,
    listening: socket.socket,
    index: int,
    pipe: Connection,
    metrics: socket.socket | None = None,
) -> None:
    """One worker: the main function of its process."""
    os.setpgid(0, 0)  # Ctrl-C in a terminal goes to the parent alone, which hands it on
    import asyncio

    from agent import log
    from agent.serve import Server, bind_internal, serve

    log.configure(config.logging)

    def leashed(server: Server) -> None:
        def parent_gone() -> None:
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            log_.error("the parent is gone: worker %d ends", index)
            server.end()

        asyncio.get_running_loop().add_reader(pipe.fileno(), parent_gone)

    try:
        with Store.open(config.store.url, journal_mb=config.store.journal_mb) as store:
            asyncio.run(
                serve(
                    config,
                    store,
                    listening,
                    lambda: pipe.send(("ready", "")),
                    internal=bind_internal(config, index),
                    metrics=metrics,
                    started=leashed,
                )
            )
    except GeliError as error:
        with contextlib.suppress(OSError):
            pipe.send(("failed", str(error)))
        sys.exit(2)
