"""Time-limited TURN credentials, and a call that goes through a real coturn."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy

from agent.web import turn
from tests.agent.web.coturn import SECRET, relay
from tests.agent.web.rig import config, serving, until

pytestmark = pytest.mark.transport


def test_credentials_are_what_coturn_computes() -> None:
    # openssl: printf 1700003600:ada | openssl dgst -sha1 -hmac north -binary | base64
    known = ("1700003600:ada", "xnSlQG4JwD6eDlwPBFdbTt6sTJk=")
    assert turn.credentials("north", 3600, 1_700_000_000, "ada") == known


def test_each_caller_gets_other_ones() -> None:
    server = config(
        server__turn_urls='["turn:127.0.0.1:3478?transport=udp"]',
        server__turn_secret=f'"{SECRET}"',
        server__turn_ttl_s="600",
        server__ice_servers='[{urls=["stun:127.0.0.1:3478"]}]',
    ).server
    stun, one = turn.ice_servers(server)
    other = turn.ice_servers(server)[1]
    assert stun.username is None
    assert one.username is not None
    assert one.credential is not None
    assert one.username != other.username
    assert one.credential != other.credential
    end = int(one.username.partition(":")[0])
    assert abs(end - time.time() - 600) < 5
    mac = hmac.new(SECRET.encode(), one.username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(one.credential) == mac
    assert turn.ice_servers(config().server) == []


async def test_a_relayed_call(tmp_path: Path) -> None:
    """Both sides use nothing but the relay, each with credentials of its own."""
    async with relay(tmp_path) as (address, log):
        settings = config(
            server__turn_urls=f'["turn:{address}?transport=udp"]',
            server__turn_secret=f'"{SECRET}"',
            server__relay_only="true",
        )
        async with serving(settings) as rig:
            info = (await rig.http.get("/api/info")).json()
            (server,) = info["ice_servers"]
            assert info["ice_ttl_s"] == 7200
            page = rig.page()
            page.ice = RTCConfiguration(
                [RTCIceServer(server["urls"], server["username"], server["credential"])],
                iceTransportPolicy=RTCIceTransportPolicy.RELAY,
            )
            sdp = await page.offer_sdp()
            candidates = [line for line in sdp.splitlines() if line.startswith("a=candidate")]
            assert candidates
            assert all(" typ relay " in line for line in candidates)
            await page.call(sdp=sdp)
            await until(page.heard)
            await page.talk()
            wrong = RTCIceServer(server["urls"], server["username"], "not what coturn computes")
            stranger = rig.page()
            stranger.ice = RTCConfiguration([wrong], iceTransportPolicy=RTCIceTransportPolicy.RELAY)
            assert "a=candidate" not in await stranger.offer_sdp()
        text = log.read_text()
    assert f"user <{server['username']}>: incoming packet ALLOCATE processed, success" in text
    assert SECRET not in text
