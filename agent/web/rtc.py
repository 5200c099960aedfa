"""One WebRTC peer of a call: negotiation, tracks, data channel, and noticing that it is gone.

aiortc has no "disconnected" state and notices a killed browser after 30 s, so a peer counts as
alive while its heartbeat or its audio arrives. It knows one call's sink and nothing of sessions;
those are in agent/web/calls.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.rtcdtlstransport import X509_DIGEST_ALGORITHMS
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.sdp import SessionDescription

from agent.config import Config
from agent.errors import ConfigError, GeliError
from agent.tasks import Tasks
from agent.web import turn
from agent.web.jitter import SoundBuffer
from agent.web.opus import Hearing
from agent.web.outbox import Outbox
from agent.web.tracks import Sink, VoiceTrack, drain_video

CHANNEL = "geli"
CHECK_S = 0.25
"""How often a peer's heartbeat is looked at."""
CONNECT_S = 15.0
"""A peer that is not connected by then never will be."""
CLOSE_S = 5.0
MESSAGE_BYTES = 4096
"""Longest data-channel message of a page."""
MAX_CANDIDATES = 64
"""The server sends a probe to every candidate of an offer, so there is a limit to them."""

log_ = logging.getLogger("geli.web")


class BadOffer(GeliError):
    """An offer that cannot be answered."""


class NoRelay(BadOffer):
    """Only relayed calls are allowed, and the relay cannot be reached: no fault of the page."""


@dataclass(slots=True, frozen=True)
class PeerEvents:
    """What a peer reports; every function is called on the event loop."""

    connected: Callable[[Peer], None]
    gone: Callable[[Peer], None]
    """Closed, failed, silent for too long or never connected. Called once; `close` follows."""
    message: Callable[[Peer, dict[str, Any]], None]
    """`mute`, `camera` and `hangup` of the page; pings are answered here."""
    failed: Callable[[], None]
    """The call's own side of the media raised."""


class Peer:
    """One peer connection.

    Args:
        sink: the call.
        outbox: the messages for the page; outlives this peer.
        session_id: for the log.
        watched: False where nobody may look: the picture is refused, so that it is never sent.
    """

    def __init__(
        self,
        config: Config,
        sink: Sink,
        outbox: Outbox,
        events: PeerEvents,
        *,
        session_id: str,
        watched: bool,
    ) -> None:
        self._config = config
        self._sink: Sink | None = sink
        self._outbox = outbox
        self._events = events
        self._log = {"session": session_id}
        self._watched = watched
        self._tasks = Tasks(self._track_failed)
        self._channel: Any = None
        self._loop = asyncio.get_running_loop()
        self._born = self._alive_at = self._loop.time()
        self._closing: asyncio.Task[None] | None = None
        self._malformed = 0
        self.connected = False
        self.gone = asyncio.Event()
        """Set once nothing more can reach the page over this peer."""
        self._pc = RTCPeerConnection(_configuration(config))
        self.voice = VoiceTrack(_Gate(self), events.failed)

    async def answer(self, offer_sdp: str) -> str:
        """Answer an offer and begin to connect.

        Raises:
            BadOffer: malformed, without a microphone, or nothing in common.
            NoRelay: no TURN server answers, and nothing else is allowed.
        """
        check_offer(offer_sdp)
        pc = self._pc
        pc.on("track", self._on_track)
        pc.on("datachannel", self._on_channel)
        pc.on("connectionstatechange", self._on_state)
        pc.addTrack(self.voice)
        offer = RTCSessionDescription(sdp=offer_sdp, type="offer")
        try:
            await pc.setRemoteDescription(offer)
            for transceiver in pc.getTransceivers():
                if transceiver.kind == "video":
                    transceiver.direction = "recvonly" if self._watched else "inactive"
                else:
                    _hold_back(transceiver.receiver, self._config.server.jitter_frames)
                    hearing = Hearing(_Gate(self).hear, self._heard_from, self._track_failed)
                    _decode_by(transceiver.receiver, hearing)
            answer = await pc.createAnswer()
            if _sound_codec(answer.sdp) == "opus":
                self.voice.encode()
            await pc.setLocalDescription(answer)
        except Exception as error:
            # aiortc reports an offer it cannot use by a dozen kinds of exception, its own, KeyError
            # and AssertionError among them; the block holds nothing but aiortc.
            log_.warning("offer refused by aiortc: %s", type(error).__name__, extra=self._log)
            raise BadOffer("the offer's SDP cannot be used", "use a current browser") from error
        sdp: str = pc.localDescription.sdp
        if self._config.server.relay_only and "a=candidate" not in sdp:
            log_.error("the relay does not answer", extra=self._log)
            raise NoRelay(
                "the relay for this call cannot be reached", "tell the person who runs this server"
            )
        self._tasks.spawn(self._watch())
        return sdp

    async def close(self) -> None:
        """Close the connection and end its tasks; safe to call twice."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._is_gone(report=False)
        self.voice.stop()
        # aiortc's close must run to its end; cut off, it would never finish for anybody.
        closing = asyncio.create_task(self._pc.close())
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_S)
        if done:
            closing.result()
        else:
            log_.warning("a peer takes long to close", extra=self._log)
            closing.add_done_callback(_note_failure)
        await self._tasks.cancel()
        # Peer and voice refer to each other: without this the call, with 15 MB of heard audio,
        # would stay until the collector of cycles comes by.
        self._sink = None

    async def flushed(self, timeout_s: float) -> None:
        """Wait until the page has what was put into the outbox, or is gone, or time is up."""
        until = self._loop.time() + timeout_s
        # SCTP tells nobody when its last byte has left, so look again and again.
        while not self.gone.is_set() and not self._outbox.drained:  # noqa: ASYNC110
            if self._loop.time() > until:
                return
            await asyncio.sleep(0.02)

    # --- alive or gone ------------------------------------------------------------------------

    def _heard_from(self) -> None:
        self._alive_at = self._loop.time()

    def _on_state(self) -> None:
        state = self._pc.connectionState
        if state == "connected" and not self.connected and not self.gone.is_set():
            self.connected = True
            self._heard_from()
            log_.info(
                "peer connected after %d ms",
                (self._loop.time() - self._born) * 1e3,
                extra=self._log,
            )
            self._events.connected(self)
        elif state in ("failed", "closed"):
            self._is_gone()

    async def _watch(self) -> None:
        """End this peer when it has been silent for too long."""
        vanished_s = self._config.limits.vanished_after_s
        while not self.gone.is_set():
            await asyncio.sleep(CHECK_S)
            now = self._loop.time()
            if not self.connected and now - self._born > CONNECT_S:
                log_.info("peer never connected", extra=self._log)
                self._is_gone()
            elif self.connected and now - self._alive_at > vanished_s:
                log_.info("peer vanished: silent for %.1f s", now - self._alive_at, extra=self._log)
                self._is_gone()

    def _is_gone(self, *, report: bool = True) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        if self._channel is not None:
            self._outbox.detach(self._channel)
        if report:
            self._events.gone(self)

    # --- media --------------------------------------------------------------------------------

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "video":
            hz = self._config.perception.frames_hz
            self._tasks.spawn(drain_video(track, _Gate(self), hz))

    def _track_failed(self, error: BaseException) -> None:
        log_.error("a track's task failed", exc_info=error, extra=self._log)
        self._events.failed()

    # --- data channel -------------------------------------------------------------------------

    def _on_channel(self, channel: Any) -> None:
        if channel.label != CHANNEL or self._channel is not None or self.gone.is_set():
            log_.warning("a data channel nobody knows was closed", extra=self._log)
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._on_message)
        channel.on("close", lambda: self._outbox.detach(channel))
        self._outbox.attach(channel)

    def _on_message(self, data: str | bytes) -> None:
        if self.gone.is_set():
            return
        message = parse_message(data)
        if message is None:
            self._malformed += 1
            if self._malformed & (self._malformed - 1) == 0:  # 1, 2, 4, 8 ...: no flood of lines
                log_.warning(
                    "data-channel message ignored: malformed (%d so far)",
                    self._malformed,
                    extra=self._log,
                )
        elif message["type"] == "ping":
            self._heard_from()
            if self._channel.readyState == "open" and self._channel.bufferedAmount < 65_536:
                self._channel.send(json.dumps({"type": "pong", "t": message["t"]}))
        else:
            self._events.message(self, message)


@dataclass(slots=True, frozen=True)
class _Gate:
    """The call as a peer's tracks see it: nothing passes any more once the peer is gone."""

    peer: Peer

    def hear(self, pcm: Any) -> None:
        if not self.peer.gone.is_set() and self.peer._sink is not None:
            self.peer._sink.hear(pcm)

    def see(self, rgb: Any) -> None:
        if not self.peer.gone.is_set() and self.peer._sink is not None:
            self.peer._sink.see(rgb)

    def play(self, samples: int) -> Any:
        if self.peer.gone.is_set() or self.peer._sink is None:
            return np.zeros(samples, np.int16)  # another peer may already play this call
        return self.peer._sink.play(samples)


def parse_message(data: str | bytes) -> dict[str, Any] | None:
    """A message of the page, or None when it is none that this server knows."""
    if not isinstance(data, str) or len(data) > MESSAGE_BYTES:
        return None
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    match message:
        case {"type": "ping", "t": int() | float() as t} if abs(t) < 1e15:  # false for NaN
            return {"type": "ping", "t": t}
        case {"type": "mute" | "camera" as kind, "on": bool() as on}:
            return {"type": kind, "on": on}
        case {"type": "hangup"}:
            return {"type": "hangup"}
    return None


def check_offer(sdp: str) -> None:
    """Refuse an offer before anything is allocated for it.

    Raises:
        BadOffer: not SDP, no audio, or more of something than a page ever sends.
    """
    if sdp.count("a=candidate") > MAX_CANDIDATES:
        raise BadOffer(f"the offer has more than {MAX_CANDIDATES} candidates")
    if len(re.findall(r"^m=", sdp, re.MULTILINE)) > 3:
        raise BadOffer(
            "the offer has more media sections than a call", "one audio, one video, one data"
        )
    try:
        description = SessionDescription.parse(sdp)
    except Exception as error:
        # The parser splits and indexes as it goes: whatever it raises, the text is no SDP.
        raise BadOffer("the offer's SDP is malformed", "use a current browser") from error
    for candidate in (c for media in description.media for c in media.ice_candidates):
        if not (_is_address(candidate.ip) and 0 <= candidate.port <= 65535):
            raise BadOffer("a candidate of the offer is no address")
    kinds = [media.kind for media in description.media]
    if kinds.count("audio") != 1:
        raise BadOffer(
            "the offer needs exactly one audio section", "allow the microphone in the page"
        )
    if kinds.count("video") > 1 or kinds.count("application") > 1:
        raise BadOffer("the offer has a section twice", "one audio, one video, one data")
    for media in description.media:
        # Without one aiortc fails in a task of its own, where nobody hears of it.
        known = media.dtls.fingerprints if media.dtls is not None else []
        if not any(f.algorithm.lower() in X509_DIGEST_ALGORITHMS for f in known):
            raise BadOffer("the offer has no usable DTLS fingerprint", "use a current browser")


def _hold_back(receiver: Any, frames: int) -> None:
    """Set how many frames of sound wait for late ones, in a buffer that gives lost ones up; aiortc
    1.16 has no setting for it, so this is done before the first packet (a test holds the name)."""
    receiver._RTCRtpReceiver__jitter_buffer = SoundBuffer(frames)


def _decode_by(receiver: Any, hearing: Hearing) -> None:
    """Let `hearing` decode what a receiver hears, in place of the queue to aiortc's thread; to be
    called before the first packet (a test holds the name)."""
    receiver._RTCRtpReceiver__decoder_queue = hearing


def _sound_codec(sdp: str) -> str:
    """The codec that sound is sent in, in lower case."""
    audio = next(m for m in SessionDescription.parse(sdp).media if m.kind == "audio")
    return str(audio.rtp.codecs[0].name).lower()


def _is_address(name: str) -> bool:
    """An IP address, or a name for multicast DNS (RFC 8828); others would be looked up by DNS, on
    the event loop, for whoever asks."""
    if name.endswith(".local"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_ice_servers(config: Config) -> None:
    """Check `server.ice_servers` before anybody calls.

    Raises:
        ConfigError: an address that is none, or relayed calls without a relay.
    """
    urls = [url for server in config.server.ice_servers for url in server.urls]
    urls += config.server.turn_urls
    for url in urls:
        try:
            parse_stun_turn_uri(url)
        except ValueError:
            raise ConfigError(
                f"server.ice_servers: {url!r} is no STUN or TURN address",
                "e.g. stun:stun.example.org:3478 or turn:turn.example.org",
            ) from None
    if config.server.relay_only and not any(url.startswith("turn") for url in urls):
        raise ConfigError(
            "server.relay_only needs a relay", "add a TURN server to ice_servers, or turn_urls"
        )


def _configuration(config: Config) -> RTCConfiguration:
    # An empty list, not None: aiortc's default is somebody else's STUN server.
    servers = [
        RTCIceServer(urls=server.urls, username=server.username, credential=server.credential)
        for server in turn.ice_servers(config.server)
    ]
    policy = RTCIceTransportPolicy.RELAY if config.server.relay_only else RTCIceTransportPolicy.ALL
    return RTCConfiguration(iceServers=servers, iceTransportPolicy=policy)


def _note_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log_.error("a peer could not be closed", exc_info=error)
