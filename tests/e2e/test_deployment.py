"""What configs/deploy/ describes, on this machine: a browser, nginx with TLS, two servers on one
PostgreSQL, coturn; scripted engines. The server that holds the call is killed, the rating arrives.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from agent import tokens
from agent.records import EndedHow
from agent.store import Store
from tests import postgres
from tests.agent.web.clusters import KEY, Group, nginx
from tests.agent.web.coturn import SECRET, relay
from tests.agent.web.test_tls import certificate
from tests.e2e.driving import FLAGS

pytestmark = pytest.mark.e2e

WAIT_MS = 40_000


async def test_a_call_behind_nginx_outlives_its_server_for_the_rating(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium is not None
    programs = postgres.programs()
    assert programs is not None
    database = postgres.Server(programs)
    hosts: list[Group] = []
    try:
        async with relay(tmp_path) as (address, log):
            sets = (
                f'server.cluster_key="{KEY}"', "server.person_tokens=true",
                "server.relay_only=true", f'server.turn_secret="{SECRET}"',
                f'server.turn_urls=["turn:{address}?transport=udp"]',
            )  # fmt: skip
            words = [word for one in sets for word in ("--set", one)]
            for _ in range(2):
                hosts.append(Group(database.url, *words, data=tmp_path))
                await hosts[-1].start(1)
            pem = certificate(tmp_path)
            async with nginx(tmp_path, [host.port for host in hosts], pem) as url:
                async with async_playwright() as playwright:
                    # Without the last flag Chromium has no way to a relay on loopback.
                    flags = [*FLAGS, "--allow-loopback-in-peer-connection"]
                    browser = await playwright.chromium.launch(executable_path=chromium, args=flags)
                    context = await browser.new_context(ignore_https_errors=True)
                    await _hold(await context.new_page(), url, database.url, hosts)
                    await browser.close()
            users = set(
                re.findall(r"user <(\d+:\w+)>.* ALLOCATE processed, success", log.read_text())
            )
            assert len(users) >= 2  # the page's and the servers', each of its own
    finally:
        for host in hosts:
            await host.end()
        database.close()


async def _hold(page: Page, url: str, store_url: str, hosts: list[Group]) -> None:
    expect.set_options(timeout=WAIT_MS)
    page.set_default_timeout(WAIT_MS)
    with Store.open(store_url) as store:
        token, made = tokens.create(store, "ada", 7)
        await page.goto(url)
        await page.get_by_test_id("token").fill(token)
        await page.get_by_test_id("token-submit").click()
        await page.get_by_test_id("consent-keep").check()
        await page.get_by_test_id("check").click()
        await page.get_by_test_id("start").click()
        await expect(page.get_by_test_id("captions")).to_contain_text("good to see you")
        (session,) = store.list()
        assert store.get(session.id).person == made.hash
        await page.reload()  # any server may be asked about it
        await page.get_by_test_id("resume-return").click()
        await _until(page, "geli.connection === 'connected'")

        held = await _holder(hosts)
        assert held.process is not None
        held.process.kill()
        await held.process.wait()
        await expect(page.get_by_test_id("screen-rating")).to_be_visible()
        await expect(page.get_by_test_id("ended-reason")).to_contain_text("failed on our side")
        await page.get_by_test_id("rating").fill("83")
        await page.get_by_test_id("rating-submit").click()
        await expect(page.get_by_test_id("thanks-text")).to_have_text(
            "Your answer is saved with the call."
        )
        found = store.get(session.id)
        assert (found.ended_how, found.overall_affect) == (EndedHow.CRASHED, 83)


async def _holder(hosts: list[Group]) -> Group:
    """The server that says, in one of its next heartbeats, that it has a call."""
    async with asyncio.timeout(30):
        while True:
            calls = {int(w.owner.split("|")[1]): w.live for w in hosts[0].workers()}
            for host in hosts:
                assert host.process is not None
                if calls.get(host.process.pid):
                    return host
            await asyncio.sleep(0.2)


async def _until(page: Page, condition: str) -> None:
    """Polls from here: the page's policy forbids the eval that Playwright's own waiting needs."""
    async with asyncio.timeout(WAIT_MS / 1000):
        while not await page.evaluate(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
