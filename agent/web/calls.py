"""The calls of one server: who may join which, what happens when a peer goes, how a call ends.

A call outlives its peer connections. Its life: an offer makes it, the first connected peer starts
it (so that the greeting is heard), a peer that goes leaves it *away* until another peer resumes it
or its grace is over, and it ends once: by the person, by a limit, or by a fault. After its end an
entry without the call stays for the rating, and until the log is written.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from typing import Any

from agent.call import Call
from agent.config import Config
from agent.errors import StoreError
from agent.host import Host
from agent.leases import hashed
from agent.records import Consent, EndedHow, Session
from agent.tasks import Tasks
from agent.telemetry import Telemetry
from agent.web.answers import Refused
from agent.web.deletion import remove
from agent.web.entry import Entry
from agent.web.outbox import Outbox
from agent.web.rtc import CONNECT_S, BadOffer, NoRelay, Peer, PeerEvents, check_offer

RETRY_S = 3.0
"""Between two attempts to write logs that could not be written."""
GOODBYE_S = 2.0
"""How long the end of a call waits until the page knows of it."""
CLOSE_S = 5.0
"""How long the server's end waits for its calls."""
RETRY_AFTER_S = 10.0
"""When a caller who found no room may try again."""
BUSY = {
    "draining": "the server is shutting down",
    "full": "all calls are taken",
    "overloaded": "the server is overloaded",
}
"""Why a new call is refused, as callers are told."""
TALK_ONLY = Consent.TALK_ONLY
ENDED_KEPT = 1000
"""Ended calls that can still be rated; the oldest go first."""

log_ = logging.getLogger("geli.web")


class Calls:
    """All calls of one worker. Methods are for the event loop's thread.

    Args:
        host: makes the calls.
        worker: id of this worker; every secret begins with it, so that any other one knows where
            its call lives.
        telemetry: told of what happens; default: one that only looks for overload.
    """

    def __init__(self, host: Host, worker: str, telemetry: Telemetry | None = None) -> None:
        self._host = host
        self._worker = worker
        self.draining = False
        """No new calls; those that run go on."""
        self._config: Config = host.config
        self._entries: dict[str, Entry] = {}
        self._opening = 0  # calls being made, not in `_entries` yet
        self._tasks = Tasks(_note_failure)
        self._closed = False
        self.telemetry = telemetry or Telemetry(host.config, host.lanes, worker)

    # --- the server's side --------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look after the logs, and at how this process fares."""
        self.telemetry.start(self)
        self._tasks.spawn(self._keep_house())

    async def close(self) -> None:
        """End every call politely: the person is told, the log is written."""
        self._closed = True
        live = [entry for entry in self._entries.values() if not entry.done.is_set()]
        for entry in live:
            self.hang_up(entry)
        if live:
            log_.info("ending %d calls", len(live))
            waits = [asyncio.create_task(entry.done.wait()) for entry in live]
            _, late = await asyncio.wait(waits, timeout=CLOSE_S)
            for wait in late:
                wait.cancel()
            if late:
                log_.warning("%d calls did not end in %.0f s", len(late), CLOSE_S)
        await self._tasks.cancel()
        peers = [entry.peer for entry in self._entries.values() if entry.peer is not None]
        await asyncio.gather(*(peer.close() for peer in peers))
        await self._flush_logs()
        for entry in self._entries.values():
            if entry.log.problem is not None:
                fate = "not written yet" if entry.log.safe else "lost"
                log_.error("%s: %s", fate, entry.log.problem, extra={"session": entry.id})
        await self.telemetry.close()

    @property
    def live(self) -> int:
        """Calls that count against the limit."""
        running = [entry for entry in self._entries.values() if not entry.done.is_set()]
        return len(running) + self._opening

    @property
    def busy(self) -> bool:
        """Whether a new call would be refused."""
        return self._why_busy is not None

    @property
    def overloaded(self) -> bool:
        """Whether this process is too slow for one more call, whatever their number."""
        return self.telemetry.pressure.overloaded

    @property
    def pending_writes(self) -> int:
        """Turns of all calls that wait for the store."""
        return sum(entry.log.pending for entry in self._entries.values())

    @property
    def _why_busy(self) -> str | None:
        if self._closed or self.draining:
            return "draining"
        if self.live >= self._config.limits.calls:
            return "full"
        return "overloaded" if self.overloaded else None

    @property
    def kept(self) -> list[str]:
        """Ids of the calls that run and are in the store."""
        entries = self._entries.values()
        return [e.id for e in entries if e.ended_how is None and e.consent is not TALK_ONLY]

    def knows(self, session_id: str) -> bool:
        """Whether the call is here, running or over."""
        return session_id in self._entries

    async def drain(self, seconds: float) -> None:
        """Take no new calls; wait until those that run are over, then end the rest politely."""
        self.draining = True
        if self.live:
            log_.info("draining: %d calls may go on for %.0f s", self.live, seconds)
        until = asyncio.get_running_loop().time() + seconds
        # A call may be opening, and has no event to wait for yet: look again and again.
        while self.live and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for entry in list(self._entries.values()):
            self.hang_up(entry, EndedHow.TIMED_OUT)

    # --- requests -----------------------------------------------------------------------------

    async def begin(
        self,
        sdp: str,
        consent: Consent,
        camera: bool,
        person: str | None = None,
        traceparent: str | None = None,
    ) -> tuple[Entry, str]:
        """A new call; returns it and the answer's SDP.

        Args:
            sdp: the offer.
            consent: what the person agreed to.
            camera: whether it is on.
            person: hash of the token that is the person's own.
            traceparent: the trace that the call is part of (W3C Trace Context).

        Raises:
            Refused: all calls are taken, or the store cannot be written.
            BadOffer: the SDP cannot be used, or there is no relay.
        """
        if (why := self._why_busy) is not None:
            self.telemetry.refused(why)
            raise Refused(
                503, BUSY[why], "try again in a few minutes", retry_after_s=RETRY_AFTER_S
            )
        try:
            check_offer(sdp)
        except BadOffer:
            self.telemetry.refused("offer")
            raise
        self._opening += 1
        try:
            entry = await self._open(consent, person, traceparent)
        except Refused:
            self.telemetry.refused("store")
            raise
        finally:
            self._opening -= 1
        entry.timer = self._after(CONNECT_S, self._never_connected, entry)
        try:
            answer = await self._bind(entry, sdp, camera)
        except (BadOffer, Refused) as error:
            self.telemetry.refused("relay" if isinstance(error, NoRelay) else "offer")
            self.hang_up(entry, EndedHow.DROPPED)
            await entry.done.wait()
            self._entries.pop(entry.id, None)
            raise
        log_.info("call opened, consent %s", consent, extra={"session": entry.id})
        return entry, answer

    async def resume(self, entry: Entry, sdp: str, camera: bool) -> str:
        """Bind a new peer to a call, whatever became of the old one; returns the answer's SDP.

        Raises:
            Refused: the call is over.
            BadOffer: the SDP cannot be used; the call and its peer stay as they are.
        """
        answer = await self._bind(entry, sdp, camera)
        log_.info("call taken up again", extra={"session": entry.id})
        return answer

    def find(self, session_id: str, secret: str | None) -> Entry:
        """The entry of a session.

        Raises:
            Refused: no such session, or not the one who holds its secret.
        """
        entry = self._entries.get(session_id)
        if entry is None:
            raise Refused(404, "there is no such call", "start a new one")
        if not hmac.compare_digest(entry.secret.encode(), (secret or "").encode()):
            raise Refused(403, "the call's secret is wrong", "only the page that began it may act")
        return entry

    def away(self, entry: Entry) -> None:
        """The page said that it goes."""
        if entry.peer is not None:
            self._release_peer(entry)

    def hang_up(self, entry: Entry, how: EndedHow = EndedHow.HUNG_UP) -> None:
        """End a call; nothing happens when it is over already."""
        if entry.ended_how is None:
            self._end(entry, how)

    async def rate(self, entry: Entry, value: float, comment: str | None) -> None:
        """Store the rating, or keep it in memory until it can be stored.

        Raises:
            Refused: nothing of this call is kept.
        """
        if not entry.can_rate:
            raise Refused(409, "nothing of this call is kept, so it cannot be rated")
        try:
            await self._host.lanes.run("store", lambda: entry.log.rate(value, "page", comment))
        except StoreError as error:
            log_.error("rating kept in memory: %s", error, extra={"session": entry.id})
        self.telemetry.rated(value)
        entry.rated = True

    async def delete(self, entry: Entry) -> None:
        """Remove everything that was stored of a call; it is ended first.

        Raises:
            StoreError: not now; it is tried again until it is done.
        """
        entry.log.deleted = True  # nothing more is written, whatever still runs
        entry.deleted = True
        self.hang_up(entry)
        await entry.done.wait()
        await self._remove(entry)
        log_.info("call deleted", extra={"session": entry.id})

    # --- a call's life ------------------------------------------------------------------------

    async def _open(
        self, consent: Consent, person: str | None, traceparent: str | None
    ) -> Entry:
        session = Session(consent=consent, source="browser", person=person)
        secret = f"{self._worker}.{secrets.token_urlsafe(24)}"
        outbox = Outbox()
        # Before the store's lane: a policy that is still being loaded must not hold up the logs.
        responder = await asyncio.to_thread(self._host.choose_responder)
        try:
            call = await self._host.lanes.run(
                "store",
                lambda: self._host.new_call(
                    session,
                    outbox.put,
                    responder=responder,
                    secret=hashed(secret),
                    observer=lambda made: self.telemetry.call(made, made.policy_id, traceparent),
                ),
            )
        except StoreError as error:
            log_.error("no call: %s", error)
            raise Refused(
                503, "the session store cannot be written", "tell the person who runs this server"
            ) from error
        entry = Entry(call.id, secret, consent, log=call.log, call=call, outbox=outbox)
        self._entries[entry.id] = entry
        return entry

    async def _bind(self, entry: Entry, sdp: str, camera: bool) -> str:
        async with entry.negotiating:
            call = self._running(entry)
            events = PeerEvents(
                connected=lambda peer: self._connected(entry, peer),
                gone=lambda peer: self._peer_gone(entry, peer),
                message=lambda peer, message: self._message(entry, peer, message),
                failed=lambda: self.hang_up(entry, EndedHow.CRASHED),
            )
            peer = Peer(
                self._config,
                call,
                entry.outbox,
                events,
                session_id=entry.id,
                watched=call.watched,
            )
            try:
                answer = await peer.answer(sdp)
                self._running(entry)
            except (BadOffer, Refused):
                await peer.close()
                raise
            if entry.peer is not None:
                self._release_peer(entry)
            call.set_camera(camera)
            entry.peer = peer
            return answer

    def _running(self, entry: Entry) -> Call:
        if entry.ended_how is not None or entry.call is None or self._closed:
            raise Refused(410, "the call is over", "start a new one")
        return entry.call

    def _connected(self, entry: Entry, peer: Peer) -> None:
        if entry.peer is not peer or entry.call is None or entry.ended_how is not None:
            return
        _cancel(entry.timer)
        entry.timer = None
        if entry.started:
            entry.call.attach()
            return
        entry.started = True
        self.telemetry.connected()
        entry.limit = self._after(
            self._config.limits.total_s, self.hang_up, entry, EndedHow.TIMED_OUT
        )
        self._tasks.spawn(self._run(entry, entry.call))

    def _peer_gone(self, entry: Entry, peer: Peer) -> None:
        if entry.peer is peer:
            self._release_peer(entry)
        else:
            self._tasks.spawn(peer.close())

    def _release_peer(self, entry: Entry) -> None:
        """Let go of the peer: until another one comes the call is away."""
        peer, entry.peer = entry.peer, None
        if peer is not None:
            self._tasks.spawn(peer.close())
        if entry.call is None or not entry.started or entry.ended_how is not None:
            return
        entry.call.detach()
        if entry.timer is None:
            log_.info("call away", extra={"session": entry.id})
            entry.timer = self._after(
                self._config.limits.resume_s, self.hang_up, entry, EndedHow.DROPPED
            )

    def _message(self, entry: Entry, peer: Peer, message: dict[str, Any]) -> None:
        if entry.peer is not peer or entry.call is None:
            return
        match message["type"]:
            case "mute":
                entry.call.set_muted(message["on"])
            case "camera":
                entry.call.set_camera(message["on"])
            case "hangup":
                self.hang_up(entry)

    def _never_connected(self, entry: Entry) -> None:
        log_.info("call never connected", extra={"session": entry.id})
        self.hang_up(entry, EndedHow.DROPPED)

    def _end(self, entry: Entry, how: EndedHow) -> None:
        entry.ended_how = how
        if entry.started and entry.call is not None:
            entry.call.hang_up(how)  # `_run` does the rest
        else:
            self._tasks.spawn(self._discard(entry))

    async def _run(self, entry: Entry, call: Call) -> None:
        try:
            how = await call.run()
        except Exception:
            # Whatever broke this call must not take the other calls of this server with it.
            log_.exception("call crashed", extra={"session": entry.id})
            how = EndedHow.CRASHED
        entry.ended_how = how
        self.telemetry.over(how.value)
        entry.outbox.put({"type": "ended", "how": how.value, "can_rate": entry.can_rate})
        await self._over(entry)

    async def _discard(self, entry: Entry) -> None:
        """A call that nobody ever reached leaves nothing behind."""
        self.telemetry.over("never_connected")
        entry.log.deleted = entry.deleted = True
        try:
            await self._remove(entry)
        except StoreError as error:
            log_.error("an empty session stays: %s", error, extra={"session": entry.id})
        await self._over(entry)

    async def _over(self, entry: Entry) -> None:
        """Say goodbye to the page and let go of everything but what the rating needs."""
        entry.call = None
        entry.ended_at = asyncio.get_running_loop().time()
        _cancel(entry.timer)
        _cancel(entry.limit)
        peer = entry.peer
        if peer is not None:
            if peer.connected:
                await peer.flushed(GOODBYE_S)
                # The page closes when it has read "ended"; closing first could overtake it.
                await _within(peer.gone, GOODBYE_S / 2)
            entry.peer = None
            await peer.close()
        entry.outbox = Outbox()
        entry.done.set()

    async def _remove(self, entry: Entry) -> None:
        store = self._host.store
        entry.to_remove = True
        if store is not None and entry.consent is not Consent.TALK_ONLY:
            await self._host.lanes.run(
                "store", lambda: remove(store, entry.id, learned=entry.started)
            )
        entry.to_remove = False

    # --- housekeeping -------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            await self._flush_logs()
            self._forget_old()

    async def _flush_logs(self) -> None:
        """Write what could not be written when it was due (a full disk, a locked database)."""
        for entry in list(self._entries.values()):
            try:
                if entry.to_remove and entry.done.is_set():
                    await self._remove(entry)
                elif entry.log.problem is not None:
                    await self._host.lanes.run("store", entry.log.flush)
                else:
                    continue
            except StoreError as error:
                log_.debug("still not written: %s", error, extra={"session": entry.id})
            else:
                log_.info("written after all", extra={"session": entry.id})

    def _forget_old(self) -> None:
        now = asyncio.get_running_loop().time()
        over = [
            entry
            for entry in self._entries.values()
            if entry.done.is_set() and entry.log.problem is None and not entry.to_remove
        ]
        over.sort(key=lambda entry: entry.ended_at)
        too_many = max(0, len(over) - ENDED_KEPT)
        for number, entry in enumerate(over):
            if number < too_many or now - entry.ended_at > self._config.limits.rating_s:
                del self._entries[entry.id]

    def _after(self, seconds: float, then: Any, *args: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, then, *args)


def _note_failure(error: BaseException) -> None:
    log_.error("a task of the server failed", exc_info=error)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
