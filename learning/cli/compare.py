"""`geli learn compare`: the paper's Table 2."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    from agent.config import Config
    from learning.compare.judge import Judged
    from learning.compare.replies import Sample
    from learning.compare.table import Answers, Comparison
    from learning.dialogue import Dataset

PUBLIC = ("chitchat", "simulated", "store:simulated")
"""Sources without anybody's private words: a judge elsewhere may read them."""


@click.command()
@click.option(
    "--policies",
    metavar="LIST",
    help="by commas: base, human (what was really said), ids, adapter folders; NAME=ID names one",
)
@click.option("--data", "source", metavar="SOURCE", help="see 'geli learn data'")
@click.option("--reward", "reward_id", metavar="ID|FOLDER", help="what scores the replies")
@click.option("--histories", "limit", type=click.IntRange(2), default=100, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="of all that is drawn")
@click.option("--replies", "taken", metavar="URL", help="of 'geli learn corpus replies'")
@click.option("--judge", "judged", is_flag=True, help="ask the language model of [judge]")
@click.option(
    "--allow-remote-judge", is_flag=True, help="send people's words to a judge elsewhere"
)
@click.option(
    "--sheet-out", type=click.Path(path_type=Path), help="write a blind rating sheet there"
)
@click.option(
    "--sheet-in",
    "sheets",
    type=click.Path(path_type=Path),
    multiple=True,
    help="a filled sheet, one a rater (no model is loaded)",
)
@click.option("--sheet-key", type=click.Path(path_type=Path), help="the sheet's key.json")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the results")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@configured
def command(
    config: Config,
    policies: str | None,
    source: str | None,
    reward_id: str | None,
    limit: int,
    seed: int,
    taken: str | None,
    judged: bool,
    allow_remote_judge: bool,
    sheet_out: Path | None,
    sheets: tuple[Path, ...],
    sheet_key: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Policies side by side on the same held-out histories; the first is compared with.

    Writes compare.md, compare.csv, compare.json and compare.png. Replies and the judge's answers
    are kept there too, so that a killed run goes on.
    """
    if sheets or sheet_key:
        if not (sheets and sheet_key):
            raise click.UsageError("--sheet-in and --sheet-key belong together")
        if policies or source or reward_id or taken or judged or sheet_out:
            raise click.UsageError("--sheet-in only reads sheets: leave out the other options")
        folder = out or sheet_key.parent
        _show(_rated(sheets, sheet_key), folder, as_json)
        return
    given = {"--policies": policies, "--data": source, "--reward": reward_id}
    if not (policies and source and reward_id):
        missing = [name for name, value in given.items() if not value]
        raise click.UsageError(f"{missing[0]} is missing")
    folder = out or Path(f"compare-{source.replace(':', '-').replace('/', '-')}")
    made = _run(
        config, policies, source, reward_id, limit, seed, folder, taken,
        sheet_out, judged, allow_remote_judge,
    )  # fmt: skip
    _show(made, folder, as_json)


def _show(made: Comparison, folder: Path, as_json: bool) -> None:
    from learning.compare import output

    output.write(made, folder)
    if as_json:
        click.echo(json.dumps(output.as_json(made), indent=2, ensure_ascii=False))
    else:
        click.echo(output.markdown(made))
        click.echo(f"written to {folder}/compare.{{md,csv,json,png}}", err=True)


def _rated(files: tuple[Path, ...], key_file: Path) -> Comparison:
    """The table of filled sheets."""
    from learning.compare import sheet, table

    key = sheet.read_key(key_file)
    rated = sheet.read(files, key)
    rating = {
        "by": "people",
        "raters": rated.raters,
        "agreement": [asdict(a) for a in rated.agreement],
    }
    return table.of_ratings(
        rated.groups, rated.marks, rated.scores, seed=key.seed, about=key.about, rating=rating
    )


def _run(
    config: Config,
    policies: str,
    source: str,
    reward_id: str,
    limit: int,
    seed: int,
    folder: Path,
    taken: str | None,
    sheet_out: Path | None,
    judged: bool,
    allow_remote_judge: bool,
) -> Comparison:
    from rich.console import Console

    from agent.cli.progress import bar
    from learning import reward
    from learning.compare import answering, replies, sheet, table
    from learning.data import load
    from learning.registry import Registry

    registry = Registry.open()
    chosen = replies.parse(policies, registry)
    if judged:
        _check_judge(config, source, len(chosen), allow_remote_judge)
    data = load(source, config)
    scorer = reward.load(reward_id, config)
    asked, how = replies.drawn(data, reward_id, registry, seed, limit)
    if taken is not None:
        from learning.corpus.replies import take

        for policy, parts in take(chosen, asked, taken, config, seed):
            answering.keep(policy, asked, config, folder, seed, parts)
    answers = []
    console = Console(stderr=True)
    with bar(f"{len(chosen)} policies", len(chosen), console) as progress:
        for i, policy in enumerate(chosen):
            answers.append(
                answering.answer(
                    policy, asked, scorer, config, folder, seed, _opener(config, policy.adapter)
                )
            )
            progress(i + 1)
    about = _about(config, data, scorer.id, how, [(p.name, p.id) for p in chosen])
    spoken = {a.name: a.replies for a in answers}
    if sheet_out is not None:
        worth = {a.name: a.scores for a in answers}
        sheet.write(
            sheet_out, asked.histories, asked.groups, spoken, seed=seed, scores=worth, about=about
        )
        click.echo(f"{sheet_out}: give raters sheet.csv and questions.md, not key.json", err=True)
    said = _judge(config, asked, answers, seed, folder) if judged else None
    return table.build(
        asked.histories,
        asked.groups,
        answers,
        seed=seed,
        marks=said.marks if said else None,
        about=about,
        rating=_rating(said) if said else None,
        notes=[f"held out: {how}", *data.notes],
    )


def _opener(config: Config, adapter: Path | None) -> Any:
    def opened() -> Any:
        from learning.policy.writing import open_writer

        return open_writer(config, adapter)

    return opened


def _about(
    config: Config, data: Dataset, reward: str, how: str, policies: list[tuple[str, str]]
) -> dict[str, Any]:
    return {
        "source": data.source,
        "digest": data.digest,
        "held_out": how,
        "reward": reward,
        "base": config.policy.base or config.responder.model,
        "policies": [{"name": name, "id": policy_id} for name, policy_id in policies],
    }


def _check_judge(config: Config, source: str, policies: int, allowed: bool) -> None:
    """Before any model is loaded: is there a judge, and may it read this?"""
    from learning.compare.judge_client import Client
    from learning.errors import DataError

    with Client(config.judge) as client:
        public = source == "store:simulated" or source.partition(":")[0] in PUBLIC
        if not (client.local or public or allowed):
            raise DataError(
                f"the judge is at {client.host}: words of {source} would leave this machine",
                "run a judge here, or add --allow-remote-judge if those people agreed to it",
            )
    if policies < 2:
        raise DataError("the judge compares at least two policies", "name more with --policies")


def _judge(
    config: Config, asked: Sample, answers: list[Answers], seed: int, folder: Path
) -> Judged:
    from rich.console import Console

    from agent.cli.progress import bar
    from learning.compare import judge
    from learning.compare.judge_client import Client
    from learning.compare.questions import CONTEXT_TURNS

    whole = judge.requests_of(len(asked.histories))
    with Client(config.judge) as client:
        click.echo(
            f"judge: {whole} questions to {client.host}, each with the last {CONTEXT_TURNS} turns "
            "of a history and every policy's reply",
            err=True,
        )
        with bar(f"asking {client.model}", whole, Console(stderr=True)) as progress:
            return judge.judge(
                client,
                asked.histories,
                {a.name: a.replies for a in answers},
                seed=seed,
                file=folder / "judge.jsonl",
                concurrency=config.judge.concurrency,
                on_progress=progress,
            )


def _rating(said: Judged) -> dict[str, Any]:
    return {
        "by": "judge",
        "model": said.model,
        "agreement": [asdict(a) for a in said.agreement],
    }
