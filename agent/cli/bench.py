"""`geli bench`: measurements of this machine. They live in tests/bench of the source tree."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from agent.errors import GeliError

ROWS = (
    "voice_to_voice",
    "server",
    "end_of_turn_wait",
    "transcription",
    "first_token",
    "first_sentence",
    "first_audio",
    "transport",
    "barge_in",
)


@click.group()
def command() -> None:
    """Measure calls on this machine (needs the source tree)."""


def _module(name: str) -> Any:
    root = Path(__file__).resolve().parents[2]
    if not (root / "tests" / "bench" / f"{name}.py").is_file():
        raise GeliError("the benchmarks are not installed", "run geli from the source tree")
    sys.path.insert(0, str(root))
    try:
        return importlib.import_module(f"tests.bench.{name}")
    except ImportError as error:
        raise GeliError(f"the benchmarks need more packages: {error}", "make test") from None


@command.command()
@click.option("--turns", type=click.IntRange(2), default=32, show_default=True)
@click.option(
    "--sequential/--no-sequential",
    default=True,
    show_default=True,
    help="also the plain sequential pipeline over the same engines",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="override a setting of both servers",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def call(turns: int, sequential: bool, settings: tuple[str, ...], as_json: bool) -> None:
    """Voice-to-voice and barge-in over a real WebRTC loopback; milliseconds."""
    bench = _module("call")
    click.echo(f"holding a call of {turns} turns", err=True)
    runs = {"overlapped": bench.measure(turns, settings)}
    if sequential:
        click.echo("holding the same call with the sequential pipeline", err=True)
        runs["sequential"] = bench.measure(turns, (*settings, *bench.SEQUENTIAL))
    if as_json:
        click.echo(json.dumps(runs, indent=2))
        return
    click.echo(f"{'ms':18}" + "".join(f"{name + ' p50':>18}{'p95':>9}{'n':>5}" for name in runs))
    for row in ROWS:
        line = f"{row.replace('_', ' '):18}"
        for run in runs.values():
            cell = run.get(row)
            line += f"{cell['p50']:18.0f}{cell['p95']:9.0f}{cell['n']:5}" if cell else f"{'–':>32}"
        click.echo(line)
    if sequential:
        first, second = (run["voice_to_voice"]["p50"] for run in runs.values())
        click.echo(f"voice to voice, overlapped / sequential: {first / second:.2f}")
    for name, run in runs.items():
        click.echo(
            f"{name}: {run['turns']} answered, {run['unanswered']} not, "
            f"{run['interrupted']} replies interrupted"
        )


@command.command()
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def perception(as_json: bool) -> None:
    """CPU of face detection and affect at the configured frame rate."""
    from agent.config import load

    _print(_module("perception").measure(load("cpu")), as_json)


@command.command()
@click.option("--calls", type=click.IntRange(1), default=4, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def concurrent(calls: int, as_json: bool) -> None:
    """Gaps in outgoing audio over concurrent calls with scripted engines."""
    _print(_module("transport").measure_concurrent(calls), as_json)


@command.command()
@click.option("--calls", type=click.IntRange(2), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def memory(calls: int, as_json: bool) -> None:
    """Memory of the server over sequential calls with scripted engines."""
    _print(_module("transport").measure_memory(calls), as_json)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def reward(as_json: bool) -> None:
    """Reward training: a step's cost as dialogues grow, and encoding once against re-encoding."""
    _print(_module("reward").run(), as_json)


@command.command()
@click.option("--updates", type=click.IntRange(1), default=2, show_default=True)
@click.option("--busy", type=click.IntRange(0), default=0, help="cores that others keep busy")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="as elsewhere")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def policy(updates: int, busy: int, settings: tuple[str, ...], as_json: bool) -> None:
    """Seconds a PPO update of 24 replies: the own loop by phase, against TRL's PPOTrainer."""
    click.echo(f"{updates + 1} updates of each, the first one to warm up", err=True)
    _print(_module("policy").run(updates, settings, busy), as_json)


@command.command()
def processes() -> None:
    """Learning in one process or two, and the seconds that `learn policy --memory` works out."""
    click.echo("three runs of each; a few minutes", err=True)
    click.echo(json.dumps(_module("processes").run(), indent=2))


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        click.echo(f"{key:28} {value}")


@command.command()
@click.option("--sessions", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def review(sessions: int, repeats: int, as_json: bool) -> None:
    """Start `geli review` on many sessions: time to the first screen, memory, imports."""
    bench = _module("review")
    click.echo(f"making up {sessions:,} sessions", err=True)
    found = bench.measure(sessions, repeats)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    times = ", ".join(f"{seconds:.2f}" for seconds in found["first_screen_s"])
    click.echo(f"first screen   {found['first_screen_median_s']:.2f} s (of {times})")
    click.echo(f"memory         {found['memory_mib']:.0f} MiB")
    click.echo(f"heavy modules  {', '.join(found['heavy_modules']) or 'none'}")
    for what, took in found["queries_ms"].items():
        click.echo(f"{what:28}{took:8.1f} ms")


@command.command()
@click.option("--sessions", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--turns", type=click.IntRange(20), default=200, show_default=True)
@click.option("--writers", type=click.IntRange(1), default=8, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def store(sessions: int, turns: int, writers: int, as_json: bool) -> None:
    """The store on SQLite and on PostgreSQL: how long a turn and a list take."""
    found = _module("store").measure(sessions, turns, writers)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    both = {name: found[name] for name in ("sqlite", "postgresql")}
    click.echo(f"{found['sessions']:,} sessions{'SQLite':>38}{'PostgreSQL':>14}")

    def row(what: str, of: Any) -> None:
        click.echo(f"{what:42}" + "".join(f"{of(one):14,.1f}" for one in both.values()))

    for key, what in (("turn_ms", "a turn, alone"), ("turn_ms_among_writers", "a turn, of many")):
        for share in ("p50", "p95"):
            row(f"{what}, {share} ms", lambda one, key=key, share=share: one[key][share])
    row(f"turns a second, {found['writers']} writers", lambda one: one["turns_a_second"])
    for how, what in (("each", "each write alone"), ("together", "windows together")):
        for share in ("p50", "p95"):
            key = f"second_of_calls_ms_{how}"
            row(f"9 calls' second, {what}, {share} ms", lambda o, k=key, s=share: o[k][s])
        row(
            f"calls {found['writers']} workers carry, {what}",
            lambda o, h=how: o[f"calls_carried_{h}"],
        )
    for name in both["sqlite"]["queries_ms"]:
        row(f"{name}, ms", lambda one, name=name: one["queries_ms"][name])


@command.command()
@click.option("--calls", default="1,2,4,8", show_default=True, help="calls at once, one run each")
@click.option("--modes", default="media,perception,everything", show_default=True)
@click.option("--seconds", type=click.FloatRange(5), default=30.0, show_default=True)
@click.option(
    "--baseline",
    type=click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True),
    help="another checkout, measured in turn with this one",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="as elsewhere")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def cost(
    calls: str,
    modes: str,
    seconds: float,
    baseline: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """CPU of a call by stage, gaps and waits over concurrent calls, calls per core."""
    bench = _module("cost")
    counts, named = _counts(calls), modes.split(",")
    if wrong := [mode for mode in named if mode not in bench.MODES]:
        raise GeliError(f"--modes: no mode {wrong[0]!r}", f"of {', '.join(bench.MODES)}")
    found = bench.measure(
        counts,
        named,
        seconds,
        settings,
        baseline,
        lambda line: click.echo(line, err=True),
    )
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(bench.table(found)[1:]))


@command.command()
@click.option("--calls", default="1,2,4,8", show_default=True, help="calls at once, one run each")
@click.option("--seconds", type=click.FloatRange(5), default=30.0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="as in geli call")
def capacity(calls: str, seconds: float, settings: tuple[str, ...]) -> None:
    """What a call costs here, kept for limits.concurrent_calls = "auto"."""
    from agent import capacity as capacities
    from agent.config import load

    config = load("cpu", settings)
    counts = _counts(calls)
    shared = _module("cost_server").SHARED
    on_loop = ["event_loop", *(stage for stage, of in shared.items() if of == "event_loop")]
    found = _module("cost").measure(
        counts, ["everything"], seconds, settings, None, lambda line: click.echo(line, err=True)
    )
    costs = [
        capacities.Cost(
            run["calls"],
            run["cores_used"],
            round(sum(run["cpu_s_per_call_s"].get(s, 0.0) for s in on_loop) * run["calls"], 4),
            round(run["voice_to_voice_ms"]["p50"] / 1e3, 3),
        )
        for run in found["runs"]
        if run["voice_to_voice_ms"] is not None
    ]
    for cost_ in costs:
        click.echo(
            f"{cost_.calls} calls  {cost_.cores:.2f} cores, event loop {cost_.loop:.2f}, "
            f"voice to voice {cost_.wait_s:.2f} s"
        )
    if not costs:
        raise GeliError("nobody was answered", "measure for longer: --seconds 60")
    limits, cores = config.limits, capacities.here()
    workers = config.server.workers
    number = capacities.cap(costs, cores, limits.target_utilisation, workers)
    click.echo(
        f"{number} calls a worker, {workers} on {cores} cores at {limits.target_utilisation:.0%}"
    )
    click.echo(f"kept in {capacities.keep(config, costs)}")


def _counts(text: str, option: str = "--calls") -> list[int]:
    counts = text.split(",")
    if not all(count.isdecimal() and int(count) for count in counts):
        raise GeliError(f"{option} {text!r} is no list of numbers", f"e.g. {option} 1,4")
    return [int(count) for count in counts]


@command.command()
@click.option("--url", help="a server that runs, up to and with /v1; else one is started")
@click.option("--model", help="the name it knows the model by")
@click.option("--at-once", default="1,4,8", show_default=True, help="replies at once")
@click.option("--dialogues", type=click.IntRange(1), default=16, show_default=True)
@click.option("--tokens", type=click.IntRange(8), default=50, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="of both")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def replies(
    url: str | None,
    model: str | None,
    at_once: str,
    dialogues: int,
    tokens: int,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time to a reply's first token and to its end, from a server and in process."""
    if url is not None and model is None:
        raise GeliError("--url needs --model", "the name the server knows the model by")
    bench = _module("replies")
    counts = _counts(at_once, "--at-once")
    found = bench.measure(
        counts, dialogues, tokens, url, model, settings, lambda line: click.echo(line, err=True)
    )
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(bench.table(found)))


@command.command()
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def telemetry(as_json: bool) -> None:
    """CPU that metrics and traces take of a turn and of a minute of call."""
    found = _module("telemetry").measure()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = list(next(iter(found.values())))
    click.echo(f"{'CPU, µs':16}" + "".join(f"{state:>10}" for state in found))
    for row in rows:
        click.echo(f"{row:16}" + "".join(f"{run[row]:10.1f}" for run in found.values()))


@command.command()
@click.option("--set", "settings", multiple=True, metavar="INPUT=NUMBER", help="e.g. calls=500")
def plan(settings: tuple[str, ...]) -> None:
    """The arithmetic of configs/deploy/SCALING.md, with other inputs if you like."""
    bench = _module("plan")
    inputs = bench.Inputs()
    given: dict[str, float] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            kind = type(getattr(inputs, name))
            given[name] = kind(value)
        except (AttributeError, ValueError):
            known = ", ".join(vars(inputs))
            raise GeliError(f"--set {setting!r} is no input", f"one of {known}") from None
    click.echo("\n".join(bench.lines(bench.plan(bench.Inputs(**given)))))


@command.command()
@click.option("--minutes", type=click.FloatRange(0.2), default=3.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def corpus(minutes: float, as_json: bool) -> None:
    """CPU of an hour of video, of embeddings and of replies; worked out for all of CANDOR."""
    from agent.config import load

    click.echo(f"encoding {minutes:g} minutes of video twice, reading each twice", err=True)
    _print(_module("corpus").measure(load("cpu"), minutes), as_json)
