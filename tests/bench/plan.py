"""The arithmetic of configs/deploy/SCALING.md, from its inputs: run it with others of your own.

Each input says where it comes from: M measured in this repository (README, learning/README and
SCALING.md name command and run), P published by others, A assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Inputs:
    """What the plan starts from."""

    calls: int = 10_000
    # One call on a worker's CPU, everything but the policy. M: geli bench cost, 4 calls at once.
    cpu_s_per_s: float = 0.2193 - 0.0664
    loop_s_per_s: float = 0.0458 + 0.0042 + 0.0087 + 0.0023 + 0.0010  # with Opus, SRTP, ICE
    worker_gb: float = 1.7  # M
    target: float = 0.6  # A: share of a core that may be taken
    host_cores: int = 32  # A
    # Talking. A: a reply every ten seconds; M (geli bench cost): up to 9.7 a minute.
    replies_a_minute: float = 6.0
    reply_tokens: float = 40.0  # A: 30 words
    drafts_a_reply: float = 1.3  # A: drafts that are thrown away
    context_tokens: float = 770.0  # A: history_tokens 600, the prompt, the reply
    token_ms: float = 25.0  # A: a reply's pace while many are written together
    gpu_tokens_s: float = 12_500 / 2  # P: vLLM, 8B on an H100, saturated; A: half of it in time
    kv_bytes: float = 2 * 32 * 4096 * 2  # LLaMA-2 7B: keys and values, 32 layers, bfloat16
    kv_gb: float = 80 * 0.9 - 13.5  # what the weights leave of an H100
    spare: float = 1.3  # A: a third more, for hosts that fail or drain
    # Network, kbit/s with 40 bytes of IP, UDP, SRTP a packet, 50 packets of sound a second.
    sound_kbit: float = 48 + 50 * 40 * 8 / 1000  # Opus at 48 (agent/web/opus.py)
    picture_kbit: float = 150 + 20 * 40 * 8 / 1000  # A: VP8 320 x 240, 7.5 frames a second
    relayed: float = 0.2  # A: callers behind a firewall
    ports_a_relay: int = 65_535 - 49_152 + 1
    # Store. Windows close once a second; M: bytes a row (SQLite), PostgreSQL's turns a second here.
    window_bytes: float = 297.0
    turn_bytes: float = 546.0
    writes_a_turn: float = 2.0  # A: each agent turn is written, then labelled two or three times
    pg_here: float = 296.0  # M: geli bench store, 2,000 sessions of 60 turns, 8 writers
    together: float = 84 / 127  # M: geli bench store, what windows that go together leave of it
    pg_server: float = 20_000.0  # A: small transactions a second, 16 cores with NVMe
    # CANDOR
    hours: float = 850 * 2
    cpu_s_an_hour: float = 75.9  # M: geli bench corpus, 3 minutes of 640 x 480
    words: float = 7e6
    words_a_turn: float = 12.0  # A
    turns_s: float = 249.0  # M: learning/README, two cores
    updates: int = 4_167  # 100,000 pairs in batches of 24


def plan(given: Inputs) -> dict[str, dict[str, float]]:
    """Rows by section."""
    i = given
    cores = i.calls * i.cpu_s_per_s / i.target * i.spare
    cap = math.floor(i.target / i.loop_s_per_s)
    workers = math.ceil(i.calls / cap * i.spare)
    hosts = math.ceil(cores / i.host_cores)
    replies = i.calls * i.replies_a_minute / 60
    tokens = replies * i.reply_tokens * i.drafts_a_reply
    writing = replies * i.drafts_a_reply * i.reply_tokens * i.token_ms / 1e3
    held = math.floor(i.kv_gb * 1e9 / (i.kv_bytes * i.context_tokens))
    by_tokens, by_memory = tokens / i.gpu_tokens_s, writing / held
    up, down = i.sound_kbit + i.picture_kbit, i.sound_kbit
    turn_rows = 2 * i.replies_a_minute / 60
    windows_s = float(i.calls)
    turn_writes = i.calls * turn_rows * i.writes_a_turn
    work = (windows_s + turn_writes) * i.together
    row_bytes = i.calls * (i.window_bytes + turn_rows * i.turn_bytes)
    turns = i.words / i.words_a_turn
    return {
        "Workers": {
            "calls a worker (its event loop)": cap,
            "workers": workers,
            "cores": math.ceil(cores),
            "hosts": hosts,
            "calls a host": math.ceil(i.calls / (hosts / i.spare)),
            "GB of memory, all workers": math.ceil(workers * i.worker_gb),
            "core-hours an hour": math.ceil(cores),
        },
        "Policy": {
            "replies a second": round(replies),
            "tokens a second": round(tokens),
            "replies being written at once": round(writing),
            "replies an H100 holds": held,
            "H100s by tokens": round(by_tokens, 1),
            "H100s by memory": round(by_memory, 1),
            "H100s with spare": math.ceil(max(by_tokens, by_memory) * i.spare),
        },
        "Network": {
            "kbit/s a call, up": round(up),
            "kbit/s a call, down": round(down),
            "Gbit/s in": round(i.calls * up / 1e6, 2),
            "Gbit/s out": round(i.calls * down / 1e6, 2),
            "Gbit/s through relays": round(2 * i.relayed * i.calls * (up + down) / 1e6, 2),
            "relay addresses (ports)": math.ceil(i.relayed * i.calls / i.ports_a_relay),
            "packets a second, all": round(i.calls * 120),
        },
        "Store": {
            "writes a second, windows": round(windows_s),
            "writes a second, turns": round(turn_writes),
            "transactions a second": round(workers + i.calls * turn_rows),
            "times what PostgreSQL did here": round(work / i.pg_here),
            "share of a server of its own": round(work / i.pg_server, 2),
            "GB a day, all calls always busy": round(row_bytes * 86_400 / 1e9),
        },
        "CANDOR": {
            "core-hours, affect windows": round(i.hours * i.cpu_s_an_hour / 3600),
            "turns": round(turns),
            "minutes, embeddings (2 cores)": round(turns / i.turns_s / 60),
            "hours, reward fine-tuned (A6000), 10 passes": round(_reward_hours(turns), 1),
            "hours, PPO, 4 A6000 (32.7 s an update)": round(i.updates * 32.7 / 3600, 1),
            "hours, PPO, 1 H100 (19.2 s an update)": round(i.updates * 19.2 / 3600, 1),
        },
    }


def _reward_hours(turns: float) -> float:
    """500 of 1656 conversations, BART's encoder (204M), 256 tokens a turn, 6 FLOPs a parameter and
    token, 40 % of an A6000's 155 TFLOP/s (bfloat16)."""
    flops = 10 * turns * 500 / 1656 * 256 * 6 * 204e6
    return flops / (0.4 * 155e12) / 3600


def lines(found: dict[str, dict[str, float]]) -> list[str]:
    """As a table in Markdown."""
    out = ["| | |", "|---|---|"]
    for section, rows in found.items():
        out.append(f"| **{section}** | |")
        out += [f"| {name} | {value:,} |" for name, value in rows.items()]
    return out
