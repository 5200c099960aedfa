"""The registry as the live agent reads it: state, choice, adapters, marks."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from agent import policies
from agent.errors import GeliError, PolicyError

pytestmark = pytest.mark.unit


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return policies.registry_of(tmp_path)


def entry(registry: Path, entry_id: str, kind: policies.Kind = "policy", **manifest: Any) -> Path:
    """An entry with one file and a manifest."""
    path = registry / policies.FOLDERS[kind] / entry_id
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"weights of " + entry_id.encode())
    digest = hashlib.sha256((path / "weights").read_bytes()).hexdigest()
    data = {"id": entry_id, "kind": kind, "files": {"weights": digest}} | manifest
    (path / "manifest.json").write_text(json.dumps(data))
    return path


def say(registry: Path, **state: Any) -> None:
    registry.mkdir(exist_ok=True)
    data = {"promoted": None, "candidate": None, "history": []} | state
    (registry / "state.json").write_text(json.dumps(data))


def line(error: pytest.ExceptionInfo[PolicyError]) -> str:
    assert isinstance(error.value, GeliError) and error.value.way_out
    text = str(error.value)
    assert "\n" not in text
    return text


def test_without_a_registry_the_base_speaks(registry: Path) -> None:
    assert policies.state(registry) == policies.State()
    assert policies.promoted(registry) is None and policies.candidate(registry) is None
    assert policies.choose(registry, 1.0, random.Random(0)) is None
    assert policies.mark_deleted(registry, "s-1") == []
    assert not registry.exists(), "looking makes nothing"


def test_who_is_promoted_and_who_is_candidate(registry: Path) -> None:
    one, two = entry(registry, "p-1"), entry(registry, "p-2")
    say(registry, promoted="p-1", candidate="p-2")
    assert (policies.promoted(registry), policies.candidate(registry)) == (one, two)


def test_the_candidate_gets_its_share(registry: Path) -> None:
    one, two = entry(registry, "p-1"), entry(registry, "p-2")
    say(registry, promoted="p-1", candidate="p-2")

    def draws(share: float, seed: int = 1) -> list[Path | None]:
        rng = random.Random(seed)
        return [policies.choose(registry, share, rng) for _ in range(400)]

    assert set(draws(0.0)) == {one} and set(draws(1.0)) == {two}
    assert 70 <= draws(0.25).count(two) <= 130
    assert draws(0.25) == draws(0.25) != draws(0.25, seed=2)


def test_without_a_candidate_its_share_is_the_promoted_ones(registry: Path) -> None:
    one = entry(registry, "p-1")
    say(registry, promoted="p-1")
    assert policies.choose(registry, 1.0, random.Random(0)) == one


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"promoted": 7, "candidate": null, "history": []}',
        '{"promoted": "../../etc", "candidate": null, "history": []}',
        '{"promoted": null, "candidate": null, "history": [{"id": "p-1"}]}',
    ],
)
def test_a_damaged_state_is_never_the_base(registry: Path, content: str) -> None:
    registry.mkdir()
    (registry / "state.json").write_text(content)
    for read in (policies.state, policies.promoted, policies.candidate):
        with pytest.raises(PolicyError) as error:
            read(registry)
        assert "state.json" in line(error) and "promote" in line(error)


def test_a_promoted_policy_that_is_gone(registry: Path) -> None:
    say(registry, promoted="p-1")
    with pytest.raises(PolicyError) as error:
        policies.promoted(registry)
    assert "p-1" in line(error) and "rollback" in line(error)


# --- adapters ----------------------------------------------------------------------------------


def test_an_adapter_for_another_base_is_refused_by_name(registry: Path) -> None:
    path = entry(registry, "p-1", base="llama-2-7b")
    policies.check_adapter(path, "llama-2-7b")
    assert policies.base_of(path) == "llama-2-7b"
    with pytest.raises(PolicyError) as error:
        policies.check_adapter(path, "smollm2")
    assert "adapter p-1 was trained for llama-2-7b, the responder speaks with smollm2" in line(
        error
    )


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_damaged_adapter_names_the_file(registry: Path, harm: str) -> None:
    path = entry(registry, "p-1", base="smollm2")
    (path / "weights").unlink()
    if harm == "changed":
        (path / "weights").write_bytes(b"other")
    with pytest.raises(PolicyError) as error:
        policies.check_adapter(path, "smollm2")
    assert "p-1" in line(error) and str(path / "weights") in line(error)


def test_an_adapter_without_a_manifest_is_taken_as_it_is(tmp_path: Path) -> None:
    assert policies.base_of(tmp_path) is None
    policies.check_adapter(tmp_path, "smollm2")


def test_a_damaged_manifest(registry: Path) -> None:
    path = entry(registry, "p-1")
    (path / "manifest.json").write_text("{ half")
    with pytest.raises(PolicyError, match="damaged"):
        policies.base_of(path)


# --- marks -------------------------------------------------------------------------------------


def test_a_deleted_session_marks_what_learned_from_it(registry: Path) -> None:
    entry(registry, "r-1", "reward", sessions=["a", "b"])
    entry(registry, "r-2", "reward", sessions=["b"])
    entry(registry, "p-3", sessions=["a"], reward="r-2")
    assert policies.mark_deleted(registry, "a") == ["r-1", "p-3"]
    assert policies.deleted_sessions(registry, "reward", "r-1") == ("a",)
    assert policies.deleted_sessions(registry, "reward", "r-2") == ()
    assert policies.mark_deleted(registry, "b") == ["r-1", "r-2", "p-3"]
    assert set(policies.deleted_sessions(registry, "reward", "r-1")) == {"a", "b"}
    assert policies.mark_deleted(registry, "unknown") == []
    manifest = json.loads((registry / "rewards/r-1/manifest.json").read_text())
    assert manifest["sessions"] == ["a", "b"], "entries never change"


def test_what_came_from_it_is_marked_too(registry: Path) -> None:
    """A policy learned from a session through its reward, and so did those that started from it."""
    entry(registry, "r-1", "reward", sessions=["a"])
    entry(registry, "p-2", sessions=["z"], reward="r-1")
    entry(registry, "p-3", parent="p-2")
    entry(registry, "p-4", parent="p-9", reward=None)
    assert policies.mark_deleted(registry, "a") == ["r-1", "p-2", "p-3"]


def test_marking_twice_changes_nothing(registry: Path) -> None:
    entry(registry, "p-1", sessions=["a"])
    policies.mark_deleted(registry, "a")
    before = (registry / "marks/policy-p-1.json").read_text()
    assert policies.mark_deleted(registry, "a") == ["p-1"]
    assert (registry / "marks/policy-p-1.json").read_text() == before


def test_an_entry_nobody_can_read_is_said(registry: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry(registry, "p-1", sessions=["a"])
    damaged = entry(registry, "p-2", sessions=["a"])
    (damaged / "manifest.json").write_text("nonsense")
    assert policies.mark_deleted(registry, "a") == ["p-1"]
    assert "p-2" in caplog.text


def test_half_written_entries_are_not_looked_at(registry: Path) -> None:
    entry(registry, ".adding-p-1", sessions=["a"])
    assert policies.mark_deleted(registry, "a") == []
