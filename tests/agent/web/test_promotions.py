"""A promotion while the server runs, and a deletion by the page of what was learned from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import policies
from agent.rollout import Rollout
from agent.store import Store
from tests import scripted
from tests.agent.web.rig import config, serving

pytestmark = pytest.mark.transport


def promote(registry: Path, policy_id: str) -> None:
    (registry / "policies" / policy_id).mkdir(parents=True)
    policies.write_state(registry, policies.State(policy_id))


async def test_the_next_call_of_a_running_server_has_the_new_policy(tmp_path: Path) -> None:
    registry = policies.registry_of(tmp_path)

    def opened(adapter: Path | None) -> scripted.ScriptedResponder:
        assert adapter is not None
        return scripted.ScriptedResponder(policy_id=f"base+{adapter.name}")

    rollout = Rollout(registry, 0.0, opened, strict=False, poll_s=1000)
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(), store, rollout=rollout) as rig:
            first = await rig.call()
            promote(registry, "p-1")
            second = await rig.call()
            info = (await rig.http.get("/api/info")).json()
            for page in (first, second):
                await page.request("POST", "/hangup")
        assert store.get(first.id).policy_id == "scripted-policy"
        assert store.get(second.id).policy_id == "base+p-1" == info["policy"]


async def test_a_call_deleted_by_its_page_marks_what_learned_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path))
    registry = policies.registry_of(tmp_path)
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as store:
        async with serving(config(), store) as rig:
            page = await rig.call()
            learned = registry / "rewards" / "r-1"
            learned.mkdir(parents=True)
            (learned / "manifest.json").write_text(json.dumps({"sessions": [page.id]}))
            assert (await page.request("DELETE")).status_code == 204
        assert not store.has(page.id)
    assert policies.deleted_sessions(registry, "reward", "r-1") == (page.id,)
