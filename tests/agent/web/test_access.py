"""Tokens of people at the door: whose call it is, guesses, revocation, proxies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from agent import tokens
from agent.errors import ConfigError
from agent.host import Host
from agent.records import person_of
from agent.store import Store
from agent.web.access import GUESSES, GUESSES_S, Access, Guessing
from tests import scripted
from tests.agent.stores import url_of
from tests.agent.web.rig import config, serving, until

pytestmark = pytest.mark.transport

SHARED = "the token that all of them share"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Store]:
    with Store.open(url_of(tmp_path)) as store:
        yield store


async def test_a_persons_token_opens_the_page_and_marks_the_session(kept: Store) -> None:
    token, made = tokens.create(kept, "ada", 7)
    settings = config(server__person_tokens="true", server__access_token=f'"{SHARED}"')
    async with serving(settings, kept) as rig:
        assert (await rig.http.get("/api/info")).status_code == 401
        entered = await rig.http.post("/api/token", json={"token": token})
        assert entered.status_code == 204
        cookie = entered.headers["set-cookie"]
        assert token not in cookie
        assert made.hash not in cookie
        assert 6 * 86_400 < int(cookie.lower().split("max-age=")[1].split(";")[0]) <= 7 * 86_400
        assert (await rig.http.get("/api/info")).json()["own_token"] is True
        page = await rig.call()
        await until(page.heard)
        await page.request("POST", "/hangup")
        await until(lambda: page.of("ended"))
        assert kept.get(page.id).person == person_of(token)
        rig.http.cookies.clear()
        await rig.http.post("/api/token", json={"token": SHARED})
        assert (await rig.http.get("/api/info")).json()["own_token"] is False
        page = await rig.call()
        assert kept.get(page.id).person is None


async def test_revoked_and_without_a_store(kept: Store) -> None:
    token, _ = tokens.create(kept, "ada", 7)
    now = 0.0
    host = Host(config(server__person_tokens="true"), kept, scripted.engines())
    access = Access(host, clock=lambda: now)
    bearer = Headers({"authorization": f"Bearer {token}"})
    cookie = Headers({"cookie": f"geli_token={tokens.cookie_value(token)}"})
    assert await access.visitor(bearer, "1.2.3.4") is not None
    assert await access.visitor(cookie, "1.2.3.4") is not None
    tokens.revoke(kept, "ada")
    assert await access.visitor(cookie, "1.2.3.4") is not None  # for these seconds
    now = 6.0
    assert await access.visitor(cookie, "1.2.3.4") is None
    assert await access.visitor(bearer, "1.2.3.4") is None
    await host.close()


async def test_guesses_are_limited_by_address(kept: Store) -> None:
    token, _ = tokens.create(kept, "ada", 7)
    now = 0.0
    settings = config(server__person_tokens="true", server__access_token=f'"{SHARED}"')
    host = Host(settings, kept, scripted.engines())
    access = Access(host, clock=lambda: now)
    for n in range(GUESSES):
        assert await access.enter(f"guess {n}", f"2001:db8::{n}") is None
    for right in (token, SHARED):
        with pytest.raises(Guessing) as refused:
            await access.enter(right, "2001:db8::ffff")  # one /64 is one guesser
    assert refused.value.wait_s == GUESSES_S
    assert await access.enter(token, "2001:db8:0:1::1") is not None
    assert await access.visitor(
        Headers({"cookie": f"geli_token={tokens.cookie_value(token)}"}), "2001:db8::1"
    )  # who is in stays in
    now = GUESSES_S + 1
    assert await access.enter(SHARED, "2001:db8::1") is not None
    await host.close()


async def test_too_many_guesses_are_429() -> None:
    async with serving(config(server__access_token=f'"{SHARED}"')) as rig:
        for _ in range(GUESSES):
            assert (await rig.http.post("/api/token", json={"token": "x"})).status_code == 401
        for refused in (
            await rig.http.post("/api/token", json={"token": SHARED}),
            await rig.http.get("/api/info", headers={"Authorization": f"Bearer {SHARED}"}),
            await rig.http.get("/", params={"token": SHARED}),
        ):
            assert refused.status_code == 429
            assert 0 < int(refused.headers["retry-after"]) <= GUESSES_S
        assert (await rig.http.get("/")).status_code == 200
        # A trusted proxy says where a request comes from (uvicorn believes loopback).
        other = {"X-Forwarded-For": "192.0.2.9"}
        entered = await rig.http.post("/api/token", json={"token": SHARED}, headers=other)
        assert entered.status_code == 204


async def test_other_addresses_need_tls_or_a_proxy_that_ends_it() -> None:
    proxied = config(
        server__host="0.0.0.0",  # noqa: S104
        server__trusted_proxies='["127.0.0.1"]',
        server__person_tokens="true",
    )
    async with serving(proxied) as rig:
        assert (await rig.http.get("/readyz")).status_code == 200  # whoever watches over it
        plain = await rig.http.get("/")
        assert plain.status_code == 403
        assert "load balancer" in plain.json()["way_out"]
        through = {"X-Forwarded-Proto": "https"}
        assert (await rig.http.get("/", headers=through)).status_code == 200
    with pytest.raises(ConfigError, match=r"needs server\.access_token"):
        config(server__host="0.0.0.0", server__trusted_proxies='["10.0.0.1"]')  # noqa: S104
    with pytest.raises(ConfigError, match=r"needs server\.cluster_key"):
        config(server__internal_host="10.0.0.1")
    with pytest.raises(ConfigError, match=r"turn_urls needs server\.turn_secret"):
        config(server__turn_urls='["turn:turn.example.org"]')
