"""The registry: entries that never change, and who speaks, whoever writes at the same time."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent import policies
from agent.cli import cli
from agent.errors import GeliError
from agent.records import Consent
from agent.store import Store
from learning.errors import RegistryError
from learning.registry import GateResult, Manifest, Registry
from tests.agent.session_samples import ended

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PASSED = GateResult(name="kl", value=3.0, threshold=12.0, passed=True, comparison="<=")
FAILED = GateResult(name="win_rate", value=0.4, threshold=0.5, passed=False, comparison=">=")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def registry(data: Path) -> Registry:
    return Registry.open()


def adapter(folder: Path, content: bytes = b"weights") -> Path:
    """What stands for an adapter's files; nothing here reads them."""
    (folder / "curves").mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "curves" / "reward.png").write_bytes(b"\x89PNG")
    return folder


def add(
    registry: Registry, tmp_path: Path, kind: policies.Kind = "policy", **more: Any
) -> Manifest:
    fields: dict[str, Any] = {
        "base": "smollm2-135m-instruct",
        "seed": 0,
        "data_digest": "0123456789abcdef",
        "data_source": "store",
    }
    return registry.add(kind, adapter(tmp_path / "made"), **(fields | more))


def line(error: pytest.ExceptionInfo[RegistryError]) -> str:
    assert isinstance(error.value, GeliError)
    text = str(error.value)
    assert "\n" not in text
    return text


# --- entries -----------------------------------------------------------------------------------


def test_an_entry_is_kept_whole_and_read_only(registry: Registry, tmp_path: Path) -> None:
    made = add(registry, tmp_path, sessions=["s-1"], metrics={"kl": 3.5}, gates=[PASSED])
    assert made.id.startswith(f"p-{datetime.now(UTC):%Y}")
    found = registry.get(made.id)
    assert found == made
    assert found.sessions == ["s-1"] and found.metrics == {"kl": 3.5} and found.gates == [PASSED]
    assert found.versions["geli"] and found.created_at.tzinfo is UTC
    folder = registry.path(made.id)
    assert set(found.files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "curves/reward.png",
    }
    assert (folder / "curves" / "reward.png").read_bytes() == b"\x89PNG"
    for path in folder.rglob("*"):
        assert path.is_dir() or not stat.S_IMODE(path.stat().st_mode) & 0o222, path
    assert registry.verify(made.id) == made


def test_numbers_that_are_none_survive(registry: Registry, tmp_path: Path) -> None:
    made = add(registry, tmp_path, metrics={"loss": float("nan"), "best": float("inf")})
    metrics = registry.get(made.id).metrics
    assert metrics["loss"] != metrics["loss"] and metrics["best"] == float("inf")
    json.loads((registry.path(made.id) / "manifest.json").read_text(), parse_constant=pytest.fail)


def test_the_newest_is_listed_first(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [add(registry, tmp_path)]
    reward = add(registry, tmp_path, "reward")
    assert reward.id.startswith("r-")

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2031, 1, 1, tzinfo=tz)

    monkeypatch.setattr("learning.registry.datetime", Later)
    made.append(add(registry, tmp_path))
    assert [m.id for m in registry.list("policy")] == [made[1].id, made[0].id]
    assert [m.id for m in registry.list("reward")] == [reward.id]


def test_ids_by_their_start(registry: Registry, tmp_path: Path) -> None:
    one, two = add(registry, tmp_path), add(registry, tmp_path)
    assert registry.get(one.id[:-1]).id == one.id
    with pytest.raises(RegistryError) as error:
        registry.get("p-")
    assert "begins 2 ids" in line(error) and one.id in line(error)
    with pytest.raises(RegistryError) as error:
        registry.get(one.id[:-1] + "x")
    assert f"did you mean {one.id}" in line(error) or two.id in line(error)
    for unknown in ("", "zz", "../rewards"):
        with pytest.raises(RegistryError):
            registry.get(unknown)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made: (made / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda made: (made / "manifest.json").write_text("{}"), "writes that file itself"),
        (lambda made: (made / "link").symlink_to("/etc/hostname"), "no plain file"),
    ],
)
def test_what_is_not_taken(registry: Registry, tmp_path: Path, spoil: Any, said: str) -> None:
    made = adapter(tmp_path / "made")
    spoil(made)
    with pytest.raises(RegistryError) as error:
        registry.add("policy", made, base="b", seed=0, data_digest="d", data_source="store")
    assert said in line(error)
    assert list((registry.root / "policies").iterdir()) == []


def test_an_empty_folder_is_nothing(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(RegistryError):
            registry.add("reward", folder, base="b", seed=0, data_digest="d", data_source="store")


def test_damage_names_the_file(registry: Registry, tmp_path: Path) -> None:
    made = add(registry, tmp_path)
    file = registry.path(made.id) / "adapter_model.safetensors"
    file.unlink()
    file.write_bytes(b"weightz")
    with pytest.raises(RegistryError) as error:
        registry.verify(made.id)
    assert str(file) in line(error) and "damaged" in line(error) and made.id in line(error)
    with pytest.raises(RegistryError, match="damaged"):
        registry.promote(made.id, "ada")
    file.unlink()
    with pytest.raises(RegistryError, match="No such file"):
        registry.verify(made.id)


def test_a_damaged_manifest_hides_no_other(registry: Registry, tmp_path: Path) -> None:
    good, bad = add(registry, tmp_path), add(registry, tmp_path)
    path = registry.path(bad.id) / "manifest.json"
    path.unlink()
    path.write_text('{"id": "half')
    assert [m.id for m in registry.list()] == [good.id]
    assert str(path) in str(registry.unreadable()[bad.id])
    with pytest.raises(RegistryError) as error:
        registry.get(bad.id)
    assert str(path) in line(error)


CRASH = """
import os, sys
from pathlib import Path
from learning import registry
from agent import policies
policies.sync_folder = lambda path: os._exit(9)  # all files are there, the folder is not yet
registry.Registry.open(Path(sys.argv[1])).add(
    "policy", Path(sys.argv[2]), base="b", seed=0, data_digest="d", data_source="store")
"""


def test_a_crash_leaves_no_entry(registry: Registry, data: Path, tmp_path: Path) -> None:
    made = adapter(tmp_path / "made")
    done = subprocess.run([sys.executable, "-c", CRASH, str(data), str(made)], cwd=ROOT)
    assert done.returncode == 9
    home = registry.root / "policies"
    (left,) = home.iterdir()
    assert (left / "manifest.json").is_file(), "it crashed late"
    again = Registry.open()
    assert again.list() == [] and again.unreadable() == {}
    with pytest.raises(RegistryError):
        again.get(left.name)
    assert left.is_dir(), "perhaps somebody writes it still"
    os.utime(left, (time.time() - 4000,) * 2)
    Registry.open()
    assert not left.exists()


def test_a_failed_copy_leaves_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("learning.registry.os.fsync", full)
    with pytest.raises(RegistryError) as error:
        add(registry, tmp_path)
    assert "No space left" in line(error)
    assert list((registry.root / "policies").iterdir()) == []


# --- who speaks --------------------------------------------------------------------------------


def test_promote_and_roll_back(registry: Registry, tmp_path: Path) -> None:
    one, two = add(registry, tmp_path, gates=[PASSED]), add(registry, tmp_path)
    assert registry.state.promoted is None
    registry.promote(one.id, "ada")
    registry.promote(two.id, "bob")
    registry.promote(two.id, "bob")  # twice is once
    assert registry.state.promoted == two.id and registry.previous == one.id
    assert registry.rollback("eve").promoted == one.id
    assert registry.rollback("eve").promoted is None
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.rollback("eve")
    history = [(c.action, c.id, c.previous, c.by) for c in registry.state.history]
    assert history == [
        ("promote", one.id, None, "ada"),
        ("promote", two.id, one.id, "bob"),
        ("promote", two.id, two.id, "bob"),
        ("rollback", one.id, two.id, "eve"),
        ("rollback", None, one.id, "eve"),
    ]
    assert policies.promoted(registry.root) is None


def test_the_base_can_be_promoted_and_undone(registry: Registry, tmp_path: Path) -> None:
    one = add(registry, tmp_path)
    registry.promote(one.id, "ada")
    registry.promote("base", "ada")
    assert registry.state.promoted is None and registry.previous == one.id
    assert registry.rollback("ada").promoted == one.id
    assert policies.promoted(registry.root) == registry.path(one.id)


def test_failed_gates_and_rewards_do_not_speak(registry: Registry, tmp_path: Path) -> None:
    weak = add(registry, tmp_path, gates=[PASSED, FAILED])
    reward = add(registry, tmp_path, "reward")
    for refuse in (lambda: registry.promote(weak.id, "a"), lambda: registry.set_candidate(weak.id)):
        with pytest.raises(RegistryError) as error:
            refuse()
        assert "1 of 2 gates: win_rate 0.4 (wanted >= 0.5)" in line(error)
        assert "--force" in line(error)
    with pytest.raises(RegistryError, match="is a reward"):
        registry.promote(reward.id, "a", force=True)
    assert registry.state.history == ()
    assert registry.promote(weak.id, "a", force=True).promoted == weak.id


def test_a_candidate_that_is_promoted_is_none_any_more(registry: Registry, tmp_path: Path) -> None:
    one, two = add(registry, tmp_path), add(registry, tmp_path)
    registry.set_candidate(one.id, "ada")
    assert policies.candidate(registry.root) == registry.path(one.id)
    assert registry.promote(two.id, "ada").candidate == one.id
    assert registry.promote(one.id, "ada").candidate is None
    registry.set_candidate(two.id)
    assert registry.set_candidate(None).candidate is None


def test_no_rollback_to_what_is_damaged(registry: Registry, tmp_path: Path) -> None:
    one, two = add(registry, tmp_path), add(registry, tmp_path)
    registry.promote(one.id, "ada")
    registry.promote(two.id, "ada")
    (registry.path(one.id) / "adapter_model.safetensors").unlink()
    with pytest.raises(RegistryError, match="adapter_model"):
        registry.rollback("ada")
    assert registry.state.promoted == two.id


def test_a_damaged_state_is_not_overwritten(registry: Registry, tmp_path: Path) -> None:
    one = add(registry, tmp_path)
    path = registry.root / "state.json"
    path.write_text("{")
    for act in (lambda: registry.promote(one.id, "a"), lambda: registry.rollback("a")):
        with pytest.raises(RegistryError, match="damaged"):
            act()
    assert path.read_text() == "{"


PROMOTE = """
import sys
from pathlib import Path
from learning.registry import Registry
registry = Registry.open(Path(sys.argv[1]))
for _ in range(40):
    registry.promote(sys.argv[2], sys.argv[2])
"""


def test_two_processes_lose_no_promotion(registry: Registry, data: Path, tmp_path: Path) -> None:
    ids = [add(registry, tmp_path).id for _ in range(2)]
    command = [sys.executable, "-c", PROMOTE, str(data)]
    children = [subprocess.Popen([*command, i], cwd=ROOT) for i in ids]
    assert [child.wait(60) for child in children] == [0, 0]
    history = registry.state.history
    assert sorted(c.by for c in history) == sorted(ids * 40)
    before: list[str | None] = [None, *(c.id for c in history)]
    assert [c.previous for c in history] == before[:-1], "each saw the one before it"
    assert registry.state.promoted == history[-1].id


# --- marks -------------------------------------------------------------------------------------


def test_marks_come_later(registry: Registry, tmp_path: Path) -> None:
    made = add(registry, tmp_path, sessions=["a", "b"])
    assert registry.marks(made.id) == ()
    assert policies.mark_deleted(registry.root, "b") == [made.id]
    assert registry.marks(made.id) == ("b",)
    assert registry.verify(made.id) == made


def test_a_session_deleted_while_it_was_learned_from(registry: Registry, tmp_path: Path) -> None:
    assert policies.mark_deleted(registry.root, "b") == []
    made = add(registry, tmp_path, sessions=["a", "b"])
    assert registry.marks(made.id) == ("b",)


# --- geli learn policies -----------------------------------------------------------------------


def geli(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def good(*words: str) -> str:
    result = geli(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_policies_on_the_command_line(registry: Registry, data: Path, tmp_path: Path) -> None:
    one = add(registry, tmp_path, gates=[PASSED], sessions=["a"])
    two = add(registry, tmp_path, gates=[PASSED, FAILED], parent=one.id)
    reward = add(registry, tmp_path, "reward")
    with Store.open("sqlite:///{data}/sessions.sqlite3") as store:
        for index, rating in enumerate((40.0, 60.0, None)):
            policy_id = f"smollm2-135m-instruct+{one.id}"
            store.insert(ended(f"s-{index}", index, overall_affect=rating, policy_id=policy_id))
        store.insert(ended("a", consent=Consent.KEEP))
    promoted = good("learn", "policies", "promote", one.id, "--by", "ada")
    assert promoted == f"the next call speaks with {one.id} (before: base)\n"
    refused = geli("learn", "policies", "promote", two.id)
    assert isinstance(refused.exception, RegistryError) and "win_rate" in str(refused.exception)
    good("learn", "policies", "promote", two.id, "--force")
    assert registry.state.promoted == two.id
    assert f"speaks with {one.id}" in good("learn", "policies", "rollback")
    deleted = good("sessions", "delete", "a", "--yes")
    both = {f"{one.id}, {two.id}", f"{two.id}, {one.id}"}  # made in one second
    assert any(f"trained on it: {ids}; retrain with 'geli learn round'" in deleted for ids in both)
    rows = {row["id"]: row for row in json.loads(good("learn", "policies", "list", "--json"))}
    assert set(rows) == {one.id, two.id}
    assert rows[one.id]["promoted"] and not rows[two.id]["promoted"]
    assert (rows[one.id]["rated_calls"], rows[one.id]["rating_mean"]) == (2, 50.0)
    assert rows[one.id]["deleted_sessions"] == ["a"]
    table = good("learn", "policies", "list")
    assert "1/2, failed: win_rate" in table and "\tpromoted\t" in table and "50.0" in table
    assert reward.id in good("learn", "policies", "list", "--rewards")
    shown = good("learn", "policies", "show", one.id)
    assert "deleted since, but learned from: a" in shown and "passed: kl 3" in shown
    assert json.loads(good("learn", "policies", "show", two.id, "--json"))["parent"] == one.id
    assert "3 files" in good("learn", "policies", "verify", one.id)
    assert "base (before:" in good("learn", "policies", "promote", "base")


def test_no_policies_yet(data: Path) -> None:
    assert json.loads(good("learn", "policies", "list", "--json")) == []
    for words in (["rollback"], ["show", "p-1"], ["promote", "p-1"], ["verify", "p-1"]):
        result = geli("learn", "policies", *words)
        assert isinstance(result.exception, RegistryError), words
        assert "\n" not in str(result.exception)


def test_a_session_nobody_learned_from_is_deleted_without_a_word(data: Path) -> None:
    with Store.open("sqlite:///{data}/sessions.sqlite3") as store:
        store.insert(ended("a"))
    assert "trained" not in good("sessions", "delete", "a", "--yes")
    assert not (data / "registry").exists()


def test_no_heavy_import() -> None:
    """`tui` imports the registry, and a list of policies must be there at once."""
    code = (
        "import sys, learning.registry, learning.cli.policies; "
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
