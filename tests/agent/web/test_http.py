"""What the server refuses, and how: tokens, origins, hosts, sizes, secrets, nonsense."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host import Host
from agent.web.server import create_app
from tests import scripted
from tests.agent.web.rig import Rig, config, serving

pytestmark = pytest.mark.transport

TOKEN = "correct horse; battery ☃ staple"  # noqa: S105


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving(config()) as running:
        yield running


def one_line(response: httpx.Response) -> str:
    """The error of a refusal, which is one line without a dot at its end."""
    answer = response.json()
    assert set(answer) == {"error", "way_out"}
    for text in answer.values():
        assert "\n" not in text
        assert not text.endswith(".")
    assert answer["error"]
    error: str = answer["error"]
    return error


async def test_the_page_and_its_headers(rig: Rig) -> None:
    page = await rig.http.get("/")
    assert page.status_code == 200
    assert "<html" in page.text
    script = await rig.http.get("/static/call.js")
    assert script.headers["content-type"].startswith("text/javascript")
    for response in (page, script, await rig.http.get("/api/info"), await rig.http.get("/nope")):
        assert response.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "camera=(self)" in response.headers["permissions-policy"]
        assert "server" not in response.headers
    assert (await rig.http.get("/healthz")).json() == {"ok": True}
    outside = ("/static/../server.py", "/static/%2e%2e/rtc.py")
    for path in ("/docs", "/redoc", "/openapi.json", *outside):
        assert (await rig.http.get(path)).status_code == 404


async def test_info_says_what_the_page_needs(rig: Rig) -> None:
    info = (await rig.http.get("/api/info")).json()
    assert set(info) == {
        "version", "profile", "question", "ice_servers", "relay_only", "heartbeat_ms",
        "vanished_after_ms", "resume_s", "video", "classifier", "policy", "busy", "ice_ttl_s",
        "own_token",
    }  # fmt: skip
    assert info["policy"] == "scripted-policy"
    assert info["busy"] is False


OFFER = {"sdp": "v=0", "type": "offer", "consent": "keep", "camera": True, "resume": None}
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n"
    f"a=fingerprint:sha-256 {':'.join(['AB'] * 32)}\r\n"
)
GARBAGE = {
    "empty lines": "\n\n\n",
    "words": "not an sdp at all",
    "no media": "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n",
    "no audio": SDP.replace("m=audio", "m=video"),
    "unknown media": SDP.replace("m=audio", "m=hologram"),
    "bad port": SDP.replace("audio 9", "audio nine"),
    "no codec": SDP,
    "strange codec": SDP + "a=rtpmap:111 telepathy/1\r\na=sendrecv\r\n",
    "bad rtpmap": SDP + "a=rtpmap:111\r\n",
    "bad candidate": SDP + "a=rtpmap:111 opus/48000/2\r\na=candidate:x\r\n",
    "candidate by name": SDP + "a=candidate:1 1 udp 1 intranet.example 9 typ host\r\n",
    "candidate's port": SDP + "a=candidate:1 1 udp 1 10.0.0.1 99999 typ host\r\n",
    "bad fingerprint": SDP + "a=rtpmap:111 opus/48000/2\r\na=fingerprint:zzz\r\n",
    "no ice": SDP + "a=rtpmap:111 opus/48000/2\r\na=sendrecv\r\na=setup:actpass\r\n",
    "bad group": SDP.replace("s=-", "s=-\r\na=group:BUNDLE 7 8"),
    "two audio": SDP + SDP[SDP.index("m=") :].replace("mid:0", "mid:1"),
    "many media": SDP + SDP[SDP.index("m=") :] * 100,
    "many candidates": SDP + "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n" * 500,
    "control characters": SDP + "\x00\x01\x02\udfff".encode(errors="replace").decode(),
    "long line": SDP + "a=" + "x" * 30_000,
}


async def test_garbage_for_an_sdp_is_one_line(rig: Rig) -> None:
    for name, sdp in GARBAGE.items():
        response = await rig.http.post("/api/offer", json=OFFER | {"sdp": sdp})
        assert response.status_code == 400, name
        one_line(response)
        assert rig.calls.live == 0, name


async def test_an_offer_without_a_usable_fingerprint_takes_no_call(rig: Rig) -> None:
    """aiortc itself would answer it, and fail later where nobody hears of it."""
    page = rig.page()
    good = await page.offer_sdp(video=True)
    unknown = re.sub(r"a=fingerprint:sha-\d+", "a=fingerprint:md5", good)
    for sdp in (re.sub(r"a=fingerprint:.*\r\n", "", good), unknown):
        response = await page.post_offer(sdp=sdp)
        assert response.status_code == 400
        assert "fingerprint" in one_line(response)
        assert rig.calls.live == 0
    fingerprint = re.search(r"a=fingerprint:.*\r\n", good)
    assert fingerprint is not None
    # Firefox gives one for the whole session (RFC 8122, section 5 allows both).
    of_session = re.sub(r"a=fingerprint:.*\r\n", "", good).replace(
        "m=audio", fingerprint[0] + "m=audio", 1
    )
    assert (await page.post_offer(sdp=of_session)).status_code == 200


async def test_a_relay_that_is_down_is_said() -> None:
    relay = '[{urls=["turn:127.0.0.1:9?transport=tcp"],username="u",credential="c"}]'
    async with serving(config(server__ice_servers=relay, server__relay_only="true")) as rig:
        response = await rig.page().post_offer()
        assert response.status_code == 503
        assert "relay" in one_line(response)
        assert rig.calls.live == 0
    async with serving(config(server__ice_servers=relay)) as rig:
        await rig.call()  # without it, where it is not the only way


MALFORMED = [
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe\x00", 400),
    (b"[" * 100_000, 400),
    (b"null", 422),
    (b"[]", 422),
    (b"{}", 422),
    (b'{"sdp":"","type":"offer","consent":"keep"}', 422),
    (b'{"sdp":"v=0","type":"answer","consent":"keep"}', 422),
    (b'{"sdp":"v=0","type":"offer","consent":"everything"}', 422),
    (b'{"sdp":"v=0","type":"offer","consent":"keep","camera":"no"}', 422),
    (b'{"sdp":"v=0","type":"offer","consent":"keep","resume":{"session_id":7}}', 422),
    (b'{"sdp":["v=0"],"type":"offer","consent":"keep"}', 422),
]


async def test_a_malformed_body_is_one_line(rig: Rig) -> None:
    for body, status in MALFORMED:
        response = await rig.http.post("/api/offer", content=body)
        assert response.status_code == status, body[:80]
        one_line(response)


async def test_large_bodies_are_refused(rig: Rig) -> None:
    response = await rig.http.post("/api/offer", content=b"x" * 10_000_000)
    assert response.status_code == 413
    one_line(response)

    async def endless() -> AsyncIterator[bytes]:  # no Content-Length
        for _ in range(400):
            yield b"y" * 10_000

    assert (await rig.http.post("/api/offer", content=endless())).status_code == 413
    long_sdp = await rig.http.post("/api/offer", json=OFFER | {"sdp": "v=0\r\n" * 20_000})
    assert long_sdp.status_code == 413
    assert "SDP" in one_line(long_sdp)


async def test_a_slow_body_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.web.security.BODY_S", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1)
        yield b"}"

    try:
        response = await rig.http.post("/api/offer", content=slow())
    except httpx.TransportError:
        return  # the server answered and hung up while this side was still sending
    assert response.status_code == 408


ORIGINS: list[tuple[dict[str, str], int]] = [
    ({}, 400),  # no browser
    ({"Origin": "http://{host}"}, 400),
    ({"Origin": "https://{host}"}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
    ({"Origin": "http://{host}.evil.example"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 400),  # a beacon, no-referrer
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "same-origin"}, 400),
    ({"Origin": "https://friend.example"}, 400),
]


async def test_foreign_origins_are_refused() -> None:
    async with serving(config(server__allowed_origins='["https://friend.example"]')) as rig:
        for headers, status in ORIGINS:
            filled = {k: v.format(host=f"127.0.0.1:{rig.port}") for k, v in headers.items()}
            response = await rig.http.post("/api/offer", json=OFFER, headers=filled)
            assert response.status_code == status, headers  # 400: it got as far as the SDP
            one_line(response)


async def test_a_rebound_name_is_refused(rig: Rig) -> None:
    rebound = ("evil.example", "evil.example:80", "127.evil.example", "localhost.evil.example")
    for host in (*rebound, "", "[::1", "192.168.0.7"):
        for path in ("/", "/api/info"):
            response = await rig.http.get(path, headers={"Host": host})
            assert response.status_code == 421, host
    for good in ("localhost:1", "127.0.0.1", "[::1]:7860"):
        assert (await rig.http.get("/", headers={"Host": good})).status_code == 200


async def test_the_token_is_needed_where_one_is_set() -> None:
    async with serving(config(server__access_token=f'"{TOKEN}"')) as rig:
        get = rig.http.get
        for path in ("/", "/static/call.js", "/healthz"):
            assert (await get(path)).status_code == 200
        for path in ("/api/info", "/api/sessions/x", "/nope"):
            refused = await get(path)
            assert refused.status_code == 401
            one_line(refused)
        assert (await rig.http.post("/api/offer", json=OFFER)).status_code == 401
        wrong = await rig.http.post("/api/token", json={"token": TOKEN[:-1]})
        assert wrong.status_code == 401
        assert "set-cookie" not in wrong.headers
        assert "set-cookie" not in (await get("/?token=wrong")).headers
        for bad in ("Bearer wrong", "Bearer", "Basic x"):
            assert (await get("/api/info", headers={"Authorization": bad})).status_code == 401
        for bad in ("geli_token=wrong", "geli_token", '"', f"geli_token={'x' * 5000}"):
            assert (await get("/api/info", headers={"Cookie": bad})).status_code == 401

        right = await rig.http.post("/api/token", json={"token": TOKEN})
        assert right.status_code == 204
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert "horse" not in cookie
        assert (await get("/api/info")).status_code == 200  # the client keeps the cookie
        rig.http.cookies.clear()
        led = await rig.http.get("/", params={"token": TOKEN})
        assert led.status_code == 303
        assert led.headers["location"] == "/"
        assert (await get("/api/info")).status_code == 200


async def test_a_bearer_token_serves_programs() -> None:
    async with serving(config(server__access_token="0123456789abcdef")) as rig:
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        assert (await rig.http.get("/api/info", headers=headers)).status_code == 200


async def test_a_call_obeys_its_secret_alone(rig: Rig) -> None:
    page = await rig.call()
    requests: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("POST", "/hangup", None),
        ("DELETE", "", None),
        ("POST", "/rating", {"overall_affect": 5}),
        ("POST", "/away", {"secret": "wrong"}),
    ]
    for secret in ("", "wrong", page.secret[:-1]):
        for method, verb, body in requests:
            path = f"/api/sessions/{page.id}{verb}"
            refused = await rig.http.request(
                method, path, json=body, headers={"X-Session-Secret": secret}
            )
            assert refused.status_code == 403
            one_line(refused)
    right, page.secret = page.secret, "wrong"
    assert (await page.post_offer(resume=True)).status_code == 403
    page.secret = right
    assert rig.calls._entries[page.id].ended_how is None
    unknown = await rig.http.get("/api/sessions/nobody", headers={"X-Session-Secret": right})
    assert unknown.status_code == 410  # of this worker, and forgotten
    assert (await rig.http.get("/api/sessions/..%2f..%2fetc")).status_code == 404


RATINGS: list[dict[str, Any]] = [
    {},
    {"overall_affect": 101},
    {"overall_affect": -1},
    {"overall_affect": "50"},
    {"overall_affect": None},
    {"overall_affect": True},
    {"overall_affect": 5, "comment": "x" * 2001},
]


async def test_a_rating_out_of_its_range_is_refused(rig: Rig) -> None:
    page = await rig.call()
    for body in RATINGS:
        refused = await page.request("POST", "/rating", json=body)
        assert refused.status_code == 422, body
        one_line(refused)
    assert (await page.status())["rated"] is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
ATTRIBUTES = [
    "a=rtpmap:111 opus/48000/2", "a=sendrecv", "a=setup:actpass", "a=setup:x", "a=mid:0",
    "a=ice-ufrag:x", "a=ice-pwd:y", "a=fingerprint:sha-256 AA:BB", "a=group:BUNDLE 0",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "a=sctp-port:5000", "a=rtcp-mux",
    "a=candidate:1 1 udp 1 10.0.0.1 9 typ host", "a=ssrc:1", "a=fmtp:111", "a=rtcp-fb:x",
]  # fmt: skip
sdp_lines = st.lists(
    st.sampled_from(SDP.split("\r\n")) | st.text(max_size=40) | st.sampled_from(ATTRIBUTES),
    max_size=25,
).map("\r\n".join)
bodies = st.fixed_dictionaries(
    {"sdp": sdp_lines | json_values},
    optional={
        "type": st.just("offer") | json_values,
        "consent": st.just("keep") | json_values,
        "camera": json_values,
        "resume": json_values,
    },
)


def test_no_body_makes_the_server_stumble() -> None:
    """Fuzz of offers: whatever comes, the answer is a refusal in one line or a call."""

    async def check(cases: list[bytes]) -> None:
        host = Host(config(limits__concurrent_calls="1"), None, scripted.engines())
        await host.start()
        app = create_app(host)
        calls = app.state.calls
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for case in cases:
                response = await client.post("/api/offer", content=case)
                assert response.status_code in (200, 400, 404, 413, 422), (case, response.text)
                if response.status_code == 200:
                    for entry in list(calls._entries.values()):
                        calls.hang_up(entry)
                        await entry.done.wait()
                else:
                    one_line(response)
        await calls.close()
        await host.close()

    cases: list[bytes] = []

    @settings(
        max_examples=250,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies | json_values | st.binary(max_size=200))
    def collect(body: Any) -> None:
        cases.append(body if isinstance(body, bytes) else json.dumps(body).encode())

    collect()
    asyncio.run(check(cases))
