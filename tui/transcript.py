"""One session as text: its turns, its affect windows in time, the reward of each turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from agent.labels import BY_PERSON
from agent.records import AffectWindow, Latency, Session, Turn
from tui.words import NONE, clock, day_and_time, number, plain, share

POSITIVE, NOT_POSITIVE, NO_FACE = "▀", "▄", "·"
"""Of a window: above the line, below it, nothing seen. The place says it, not the colour."""
BAR = 8
"""Cells of the longest reward to either side."""
LABELS = {1: "▀ positive", 0: "▄ not positive", None: "· unknown"}
STAGES = {
    "end_of_turn_wait_ms": "waited for the end of the turn",
    "transcription_ms": "transcription",
    "first_token_ms": "first token",
    "first_sentence_ms": "first sentence",
    "first_audio_ms": "first sound made",
    "voice_to_voice_ms": "voice to voice",
}


def head(session: Session) -> Text:
    """What is known of the whole call, in a few lines."""
    rating = number(session.overall_affect)
    if session.overall_affect is not None:
        rating += f" ({session.overall_affect_source or 'unknown'})"
    ends_s = [turn.end_s for turn in session.turns] + [w.end_s for w in session.windows]
    ended = session.ended_how.replace("_", " ") if session.ended_how else "● live"
    out = Text()
    out.append(f"{day_and_time(session.started_at, year=True)}", "bold")
    out.append(f"  {clock(max(ends_s, default=0.0))}  {ended}  {session.source}")
    out.append(f"  consent {session.consent}")
    out.append(f"\nrating {rating}", "bold")
    out.append(f"  policy {session.policy_id or NONE}")
    if session.excluded:
        out.append(f"\n× excluded: {plain(session.excluded_reason or 'no reason given')}", "bold")
    if session.comment:
        out.append(f"\ncomment: {plain(session.comment)}", "italic")
    if session.note or session.tags:
        parts = [f"✎ {plain(session.note)}" if session.note else ""]
        parts += [f"tags: {', '.join(map(plain, session.tags))}" if session.tags else ""]
        out.append("\n" + "  ".join(part for part in parts if part))
    return out


def strip(
    windows: Sequence[AffectWindow], turns: Sequence[Turn], width: int, at: Turn | None = None
) -> Text:
    """The affect windows in time over who spoke, two lines of `width` cells.

    A cell shows what most of the windows that lie there say; a space is a time without windows.
    `A` and `u` below are the agent's and the user's turns, `┃` gaps; the turn at the cursor is
    shown in reverse.
    """
    ends_s = [turn.end_s for turn in turns] + [window.end_s for window in windows]
    whole = max(ends_s, default=0.0) or 1.0
    cells: list[list[bool | None]] = [[] for _ in range(width)]
    for window in windows:
        middle = (window.start_s + window.end_s) / 2
        cells[_cell(middle, whole, width)].append(window.positive)
    who = [" "] * width
    for turn in turns:
        mark = "A" if turn.speaker == "agent" else "u"
        first, last = _cell(turn.start_s, whole, width), _cell(turn.end_s, whole, width)
        who[first : last + 1] = mark * (last + 1 - first)
    here = range(0)
    if at is not None:
        here = range(_cell(at.start_s, whole, width), _cell(at.end_s, whole, width) + 1)
    for i, seen in enumerate(cells):
        if not seen:  # a cell between two centres shows the window that lies there
            middle = (i + 0.5) * whole / width
            over = [w for w in windows if w.start_s <= middle < w.end_s]
            near = min(over, key=lambda w: abs((w.start_s + w.end_s) / 2 - middle), default=None)
            seen += [near.positive] if near is not None else []
    out = Text(no_wrap=True)
    for i, seen in enumerate(cells):
        sign, style = _of_cell(seen)
        out.append(sign, Style(color=style, reverse=i in here))
    out.append("\n")
    for i, mark in enumerate(who):
        out.append(mark, Style(dim=True, reverse=i in here))
    return out


def _of_cell(seen: Sequence[bool | None]) -> tuple[str, str | None]:
    faces = [one for one in seen if one is not None]
    if not seen:
        return " ", None
    if not faces:
        return NO_FACE, None
    if 2 * sum(faces) > len(faces):
        return POSITIVE, "green"
    return NOT_POSITIVE, "red"


def _cell(at_s: float, whole_s: float, width: int) -> int:
    return min(max(int(at_s / whole_s * width), 0), width - 1)


def block(turn: Turn, rewards: Mapping[int, float]) -> RenderableType:
    """One turn: a line about it, then what was said, indented.

    Args:
        turn: the turn.
        rewards: index to the reward with the session's mean removed, points.
    """
    agent = turn.speaker == "agent"
    out = Text()
    out.append(f"{turn.index:>3} {clock(turn.start_s):>6} ", Style(dim=True))
    out.append("agent" if agent else "user ", Style(bold=True, color="cyan" if agent else None))
    if agent:
        by_hand = (turn.li_rule or "").startswith(BY_PERSON)
        label = LABELS[turn.li] + (" ✎" if by_hand else "")
        colour = {1: "green", 0: "red", None: None}[turn.li]
        out.append(f"  {label:<16}", Style(color=colour))
        if turn.kind != "reply":
            out.append(f" {turn.kind}", Style(dim=True))
    if turn.index in rewards:
        out.append("  ")
        out.append_text(bar(rewards[turn.index], max(map(abs, rewards.values()))))
    if turn.sentiment is not None:
        out.append(f"  words {turn.sentiment:+.2f}", Style(dim=True))
    said = Text(plain(turn.text) or "(nothing was heard)")
    if turn.interrupted:
        said.append("  ⊘ interrupted", Style(bold=True, color="yellow"))
        if rest := unheard(turn):
            said.append("\nnever heard: ", Style(dim=True, italic=True))
            said.append(plain(rest), Style(dim=True, strike=True))
    return Group(out, Padding(said, (0, 1, 0, 11)))


def unheard(turn: Turn) -> str:
    """What the policy wrote of a turn and nobody heard."""
    written = " ".join((turn.generated_text or "").split())
    heard = " ".join(turn.text.split())
    if written.startswith(heard):
        return written[len(heard) :].strip()
    return written if written != heard else ""


def bar(value: float, largest: float) -> Text:
    """A reward with its mean removed as a bar from the middle, to the left when it is below."""
    size = round(BAR * abs(value) / (largest or 1.0))
    left = ("▇" * size if value < 0 else "").rjust(BAR)
    right = ("▇" * size if value >= 0 else "").ljust(BAR)
    out = Text()
    out.append(left, "red")
    out.append("│")
    out.append(right, "green")
    out.append(f"{value:+6.1f}")
    return out


def details(turn: Turn, windows: Sequence[AffectWindow], reward: float | None) -> Text:
    """Everything that is known of one turn."""
    out = Text()
    out.append(f"turn {turn.index}, {turn.speaker}, {turn.kind}\n", "bold")
    out.append(f"{clock(turn.start_s)} to {clock(turn.end_s)}, {turn.end_s - turn.start_s:.1f} s\n")
    if turn.speaker == "agent":
        out.append(f"\nlabel     {LABELS[turn.li]}\n")
        out.append(f"rule      {plain(turn.li_rule or NONE)}\n")
        out.append(f"face in   {share(turn.li_coverage)} of {len(turn.li_windows)} windows\n")
        own = [w for w in windows if w.index in set(turn.li_windows)]
        if own:
            out.append(f"windows   {''.join(_of_cell([w.positive])[0] for w in own)}\n")
            valences = [w.valence for w in own if w.valence is not None]
            if valences:
                out.append(f"valence   {sum(valences) / len(valences):+.2f} mean\n")
        if reward is not None:
            out.append(f"reward    {reward:+.1f} points against the call's mean\n")
    if turn.sentiment is not None:
        out.append(f"words     {turn.sentiment:+.2f} sentiment\n")
    if turn.latency is not None:
        out.append("\nlatency\n", "bold")
        out.append_text(latency(turn.latency))
    if turn.prosody:
        out.append("\nprosody\n", "bold")
        for name, value in turn.prosody.items():
            out.append(f"{name:<20} {value:g}\n")
    out.append("\nengines\n" if turn.engines else "", "bold")
    for role, engine in turn.engines.items():
        out.append(f"{role:<10} {plain(engine)}\n")
    if turn.policy_id:
        out.append(f"policy     {plain(turn.policy_id)}\n")
    return out


def latency(stages: Latency) -> Text:
    """Where the time of a reply went, as bars."""
    values = {name: getattr(stages, name) for name in STAGES}
    longest = max((v for v in values.values() if v is not None), default=0.0) or 1.0
    out = Text()
    for name, title in STAGES.items():
        value = values[name]
        if value is not None:
            size = max(round(10 * value / longest), 0)
            out.append(f"{value:>6.0f} ms {'▇' * size:<10} {title}\n")
    return out
