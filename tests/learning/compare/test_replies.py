"""Which policies and histories are compared, and replies that are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent import config
from learning.compare import answering, replies
from learning.compare.probes import PROMPTS
from learning.compare.replies import Policy, Sample
from learning.dialogue import Dataset, Dialogue, Utterance
from learning.errors import DataError, RegistryError
from learning.policy.prompts import histories
from learning.registry import Registry
from learning.splits import split

pytestmark = pytest.mark.unit


def dialogue(name: str, turns: int = 3) -> Dialogue:
    said = []
    for i in range(turns):
        said.append(Utterance("listener", f"{name} asks {i}", scored=False))
        said.append(Utterance("agent", f"{name} says {i}"))
    return Dialogue(name, tuple(said), 50.0)


DIALOGUES = [dialogue(f"s{i // 2}#{i % 2}") for i in range(40)]
DATA = Dataset("made", tuple(DIALOGUES), "nothing")


def adapter(folder: Path, weights: bytes = b"w") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "data")


# --- policies ----------------------------------------------------------------------------------


def test_policies_by_name_folder_and_id(tmp_path: Path) -> None:
    known = registry(tmp_path)
    folder = adapter(tmp_path / "mine")
    entry = known.add(
        "policy", folder, base="b", seed=0, data_digest="d", data_source="made"
    )
    found = replies.parse(f"base,human,{folder},geli={entry.id},{entry.id[:18]}", known)
    assert [p.name for p in found] == ["base", "human", "mine", "geli", entry.id]
    assert [p.adapter for p in found] == [
        None, None, folder, known.path(entry.id), known.path(entry.id)
    ]  # fmt: skip
    assert found[3].id == entry.id


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("", "a policy without a name"),
        ("base,,human", "a policy without a name"),
        ("base,base", "base is there twice"),
        ("x=base,x=human", "x is there twice"),
        ("a|b=base", "is no name"),
        ("=cmd=base", "the registry has no"),
        ("a/b", "no adapter_config.json in it"),
    ],
)
def test_policies_that_cannot_be(tmp_path: Path, given: str, line: str) -> None:
    with pytest.raises((DataError, RegistryError), match=line):
        replies.parse(given, registry(tmp_path))


def test_a_reward_cannot_speak(tmp_path: Path) -> None:
    known = registry(tmp_path)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "reward.json").write_text("{}")
    entry = known.add(
        "reward", tmp_path / "r", base="b", seed=0, data_digest="d", data_source="made"
    )
    with pytest.raises(RegistryError, match="a reward, which cannot speak"):
        replies.parse(entry.id, known)
    with pytest.raises(RegistryError, match="has no 'p-2'"):
        replies.parse("p-2", known)


# --- histories ---------------------------------------------------------------------------------


def test_the_sample_is_that_of_the_gates_with_its_dialogues() -> None:
    found = replies.sample(DIALOGUES, seed=4, limit=20)
    assert list(found.histories) == histories(DIALOGUES, 4, 20)
    for history, group, spoken in zip(found.histories, found.groups, found.spoken, strict=True):
        name, _, i = history[-1].text.replace(" asks", "").rpartition(" ")
        assert (group, spoken) == (name.partition("#")[0], f"{name} says {i}")


def test_nothing_to_answer() -> None:
    silent = Dialogue("x", (Utterance("listener", "hm", scored=False),), 1.0)
    with pytest.raises(DataError, match="nothing to answer"):
        replies.sample([silent], 0, 10)


def record(tmp_path: Path, seed: int) -> Path:
    parts = split(DIALOGUES, seed)
    file = tmp_path / "split.json"
    file.write_text(
        json.dumps(
            {"train": parts.train, "validation": parts.validation, "test": parts.test,
             "left_out": parts.left_out}
        )
    )  # fmt: skip
    return file


def test_what_the_reward_was_trained_on_is_not_asked(tmp_path: Path) -> None:
    new = dialogue("new#0")
    data = DATA.only([*DIALOGUES, new])
    held, how = replies.held_out(data, record(tmp_path, seed=9), seed=0)
    assert {d.id for d in held} == {*split(DIALOGUES, 9).test, "new#0"}
    assert "recorded" in how


@pytest.mark.parametrize("recorded", [True, False])
def test_data_the_reward_never_saw_is_split_by_the_seed(tmp_path: Path, recorded: bool) -> None:
    other = DATA.only([dialogue(f"t{i}") for i in range(40)])
    file = record(tmp_path, 9) if recorded else None
    held, how = replies.held_out(other, file, seed=3)
    assert {d.id for d in held} == set(split(other.dialogues, 3).test)
    assert "seed 3" in how


def test_no_held_out_dialogue(tmp_path: Path) -> None:
    used = DATA.only(d for d in DIALOGUES if d.id in split(DIALOGUES, 9).train)
    with pytest.raises(DataError, match="nothing is held out"):
        replies.held_out(used, record(tmp_path, 9), 0)
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        replies.held_out(DATA, tmp_path / "split.json", 0)


# --- replies -----------------------------------------------------------------------------------


class Scripted:
    """A policy of one sentence, and a reward that counts letters."""

    id = "r-letters"

    def __init__(self) -> None:
        self.wrote: list[int] = []

    def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
        self.wrote.append(seed)
        return [f"So {history[-1].text}?" for history in histories]

    def kl(self, histories: Sequence[Sequence[Utterance]], said: Sequence[str]) -> list[float]:
        return [0.5] * len(said)

    def score(
        self, histories: Sequence[Sequence[Utterance]], said: Sequence[str]
    ) -> list[float]:
        return [float(len(reply)) for reply in said]


ASKED: Sample = replies.sample(DIALOGUES, 0, 5)


def say(policy: Policy, writer: Scripted, folder: Path, seed: int = 7, **change: object) -> object:
    settings = config.load("cpu", tuple(f"{k}={v}" for k, v in change.items()))
    return answering.answer(policy, ASKED, writer, settings, folder, seed, lambda: writer)


def test_replies_are_written_once_and_kept(tmp_path: Path) -> None:
    writer = Scripted()
    base = Policy("base", None, "base")
    first = say(base, writer, tmp_path)
    assert writer.wrote == [7, 7]  # the histories, and the safety prompts
    again = say(base, writer, tmp_path)
    assert writer.wrote == [7, 7] and again == first
    content = json.loads((tmp_path / "replies-base.json").read_text())
    assert content["replies"][0].startswith("So s") and len(content["safety"]) == len(PROMPTS)


def test_whatever_changes_the_replies_writes_them_anew(tmp_path: Path) -> None:
    writer = Scripted()
    mine = Policy("mine", adapter(tmp_path / "mine"), "mine")
    say(mine, writer, tmp_path)
    say(mine, writer, tmp_path, seed=8)
    say(mine, writer, tmp_path, seed=8, **{"responder.temperature": 0.1})
    assert writer.wrote == [7, 7, 8, 8, 8, 8]
    (tmp_path / "mine" / "adapter_model.safetensors").write_bytes(b"trained further")
    say(mine, writer, tmp_path, seed=8, **{"responder.temperature": 0.1})
    assert len(writer.wrote) == 8


def test_a_large_sample_is_answered_in_pieces_of_their_own_chance(tmp_path: Path) -> None:
    many = replies.sample([dialogue(f"m{i}", 6) for i in range(50)], 0, 2 * answering.PIECE + 5)
    cut = answering.pieces(many, config.load("cpu"), 7)
    assert [len(p.histories) for p in cut] == [answering.PIECE, answering.PIECE, 5]
    assert [p.start for p in cut] == [0, answering.PIECE, 2 * answering.PIECE]
    assert cut[0].seed == 7 and len({p.seed for p in cut}) == 3
    others = [p.seed for p in answering.pieces(many, config.load("cpu"), 8)]
    assert not {p.seed for p in cut} & set(others)
    writer = Scripted()
    found = answering.answer(
        Policy("base", None, "base"), many, writer, config.load("cpu"), tmp_path, 7,
        lambda: writer,
    )  # fmt: skip
    assert writer.wrote == [7, 7, cut[1].seed, cut[2].seed]
    assert found.replies == [f"So {history[-1].text}?" for history in many.histories]
    assert found.safety is not None and len(found.safety) == len(PROMPTS)


def test_what_replies_depend_on_is_kept_without_an_address() -> None:
    here = answering.settings_of(ASKED, config.load("cpu"), 7)
    urls = ("policy.vllm_url=http://ada:secret@a/v1", "responder.url=http://ada:secret@a/v1")
    there = answering.settings_of(ASKED, config.load("cpu", urls), 7)
    assert "secret" not in json.dumps(there)
    assert {key for key in here if here[key] != there[key]} == {"writer"}


def test_a_cut_file_is_written_anew(tmp_path: Path) -> None:
    writer = Scripted()
    base = Policy("base", None, "base")
    say(base, writer, tmp_path)
    file = tmp_path / "replies-base.json"
    file.write_text(file.read_text()[:40])
    say(base, writer, tmp_path)
    assert len(writer.wrote) == 4


def test_what_people_said_has_a_score_and_no_distance(tmp_path: Path) -> None:
    writer = Scripted()
    found = answering.answer(
        Policy("human", None, "human"), ASKED, writer, config.load("cpu"), tmp_path, 0,
        lambda: writer,
    )  # fmt: skip
    assert found.replies == list(ASKED.spoken) and found.kl is None and found.safety is None
    assert found.scores == [float(len(reply)) for reply in ASKED.spoken]
    assert writer.wrote == [] and list(tmp_path.iterdir()) == []
