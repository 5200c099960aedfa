"""Typed configuration: one TOML file a profile, strict keys, errors that name file, key and values.

`load("cpu")` reads the packaged profile; `load("my.toml")` reads a file, whose optional first key
`base = "cpu"` names the profile it overrides. `--set section.key=value` overrides both.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import json
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import ConfigError
from agent.learning_config import Gates, Judge, Policy, Reward, Rollout
from agent.records import Consent
from agent.telemetry_config import Telemetry

PAPER_PROMPT = (
    "You are AI. You are having a casual social conversation with a User. AI is polite, kind, "
    "obedient, honest, and does not swear. You are given the dialogue history, generate the "
    "response to the User in under 100 words."
)
"""The paper's prompt (appendix), the default system prompt."""

SECRET = frozenset({"access_token", "credential", "cluster_key", "turn_secret"})
"""Keys whose values are never shown."""

NOT_THE_CALL = {
    "server", "models", "store", "retention", "logging", "limits", "telemetry",
    "reward", "policy", "gates", "rollout", "judge",
}  # fmt: skip
"""Sections that do not shape a call; which policy spoke stands in its record."""

Days = typing.Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)]
Positive = typing.Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = typing.Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IceServer(_Section):
    """A STUN or TURN server (RFC 8489, RFC 8656)."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class Server(_Section):
    """Where the page is served, and to whom."""

    host: str = "127.0.0.1"
    port: int = Field(7860, ge=0, le=65535)
    """0 asks the system for a free port."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: list[str] = Field(default_factory=list)
    """Addresses or networks of load balancers that end TLS: what they say of scheme and caller is
    believed (X-Forwarded-Proto, -For). With one of them no TLS files are needed."""
    access_token: str | None = Field(None, min_length=16)
    """One token for all. This or `person_tokens` is required for any address but loopback."""
    person_tokens: bool = False
    """Let in whoever has a token of `geli tokens create`, and keep whose session it was."""
    allowed_origins: list[str] = Field(default_factory=list)
    """Origins beyond the server's own that may post offers."""
    ice_servers: list[IceServer] = Field(default_factory=list)
    turn_urls: list[str] = Field(default_factory=list)
    """TURN servers with which `turn_secret` is shared (coturn's `use-auth-secret`)."""
    turn_secret: str | None = Field(None, min_length=16)
    turn_ttl_s: float = Field(7200, ge=60)
    """How long the credentials hold that each caller gets for them."""
    relay_only: bool = False
    workers: int = Field(1, ge=1, le=64)
    """Processes that share the address; each loads the models and takes `limits` calls."""
    internal_host: str = "127.0.0.1"
    """Address of this machine on which the workers of other machines reach this one."""
    internal_port: int = Field(0, ge=0, le=65535)
    """Of the first worker, the next takes the next; 0: any free ones."""
    cluster_key: str | None = Field(None, min_length=32)
    """Shared by all workers behind one load balancer; the workers of one machine make their own."""
    drain_s: float = Field(30.0, ge=0)
    """After SIGTERM: how long running calls may go on before they are ended politely."""
    jitter_frames: int = Field(2, ge=0, le=12)
    """Frames of 20 ms of received sound held back against jitter; more where the network is bad.
    Each delays barge-in and every answer by 20 ms."""


class Limits(_Section):
    """What one server takes on."""

    concurrent_calls: Annotated[int, Field(ge=1)] | Literal["auto"] = 4
    """Of one worker. "auto": what this machine carries, as `geli bench capacity` measured it."""
    target_utilisation: Annotated[float, Field(gt=0, le=1)] = 0.7
    """"auto": share of the CPU that calls may take."""
    shed_lag_s: float = Field(0.25, ge=0)
    """Lateness of the event loop, over seconds, at which new calls are refused; 0: never."""
    shed_wait_s: float = Field(8.0, ge=0)
    """Wait for an engine at which new calls are refused; 0: never."""
    body_bytes: int = Field(262_144, ge=1024)
    sdp_bytes: int = Field(65_536, ge=1024)
    heartbeat_s: Positive = 1.0
    vanished_after_s: Positive = 4.0
    """A peer whose heartbeat is this late is gone."""
    resume_s: float = Field(60.0, ge=0)
    """A dropped call can be taken up again this long."""
    rating_s: Positive = 86_400.0
    """The page can rate an ended call this long."""
    total_s: Positive = 3600.0

    @property
    def calls(self) -> int:
        """`concurrent_calls` as a number; "auto" was resolved before (agent/capacity.py)."""
        if self.concurrent_calls == "auto":
            raise RuntimeError("limits.concurrent_calls was not resolved")
        return self.concurrent_calls


class TurnTaking(_Section):
    """When the agent takes the turn and when it yields. Seconds on the session clock."""

    strategy: Literal["overlapped", "sequential"] = "overlapped"
    """`sequential` is the plain baseline of `geli bench call`: fixed hangover, no overlap."""
    speech_threshold: Share = 0.5
    barge_in_threshold: Share = 0.5
    """VAD probability that counts as speech while the agent speaks."""
    barge_in_sure: Share = 0.75
    """VAD probability of one frame that pauses playback alone, until that proves wrong once."""
    speech_start_s: Positive = 0.1
    pause_s: Positive = 0.13
    """A pause this long starts transcription and end-of-turn scoring."""
    complete_threshold: Share = 0.5
    draft_threshold: Share = 0.1
    """Under this probability of a complete turn no reply is drafted ahead."""
    preview_s: Positive = 1.2
    """Speech between two passes of the recogniser for the captions."""
    min_endpoint_s: Positive = 0.26
    """Silence before a turn that the model calls complete may be taken."""
    max_endpoint_s: Positive = 2.0
    """Silence after which any turn is over."""
    sequential_hangover_s: Positive = 0.8
    barge_in_onset_s: Positive = 0.064
    """User speech over the agent, less sure, that pauses playback."""
    barge_in_confirm_s: Positive = 0.9
    """User speech over the agent that is no backchannel, whatever the words."""
    resume_after_s: Positive = 0.4
    """Silence after a pause for a backchannel, before playback goes on."""
    backchannel_max_words: int = Field(3, ge=0)
    max_user_turn_s: Positive = 60.0
    idle_prompt_s: Positive = 12.0
    idle_prompts: int = Field(2, ge=0)
    idle_timeout_s: Positive = 60.0
    """Silence of both sides that ends the call."""


class Dialogue(_Section):
    """What the agent says around the policy, and how much it remembers."""

    system_prompt: str = PAPER_PROMPT
    greeting: str = "Hi, it's good to see you. How are you feeling today?"
    idle_prompts: list[str] = Field(
        default=["Are you still there?", "Take your time, I'm listening."], min_length=1
    )
    goodbye: str = "It was nice talking with you. Goodbye."
    apology: str = "Sorry, I lost my train of thought. Could you say that again?"
    history_tokens: int = Field(600, ge=64)
    max_words: int = Field(100, ge=5)
    """Replies stay under this many words (the paper's prompt says 100)."""


class VoiceActivityEngine(_Section):
    engine: str = "silero"


class EndOfTurnEngine(_Section):
    engine: str = "smart-turn"
    model: str = "smart-turn-v3.2"


class RecognizerEngine(_Section):
    engine: str = "faster-whisper"
    model: str = "whisper-tiny"
    language: str = "en"
    compute_type: str = "int8"
    device: str = "cpu"
    threads: int = Field(2, ge=1)
    short_window: bool = True
    """Encode only the utterance plus a margin; a full pass where the check fails."""
    min_confidence: float = -1.0
    """Mean log-probability under which nothing was understood."""


class ResponderEngine(_Section):
    engine: str = "transformers"
    model: str = "smollm2-135m-instruct"
    adapter: Path | None = None
    """A LoRA adapter directory (PEFT safetensors)."""
    precision: Literal["int8", "bfloat16", "float16", "float32"] = "int8"
    """`int8` quantises the linear layers dynamically; CPU only."""
    device: str = "cpu"
    threads: int = Field(2, ge=1)
    url: str | None = None
    """`openai`: base URL of any OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1."""
    api_key_env: str = "OPENAI_API_KEY"
    connect_s: Positive = 3.0
    first_token_s: Positive = 10.0
    """`openai`: from asking to the first token, all attempts and the wait for a place included."""
    between_tokens_s: Positive = 5.0
    timeout_s: Positive = 60.0
    """`openai`: the whole reply."""
    in_flight: int = Field(16, ge=1)
    """`openai`: replies that one process has the server write at once."""
    waiting: int = Field(16, ge=0)
    """`openai`: replies that may wait for a place; more fail at once."""
    adapters: Literal["none", "names", "vllm", "paths", "llama.cpp"] = "none"
    """`openai`: how the registry's policies are asked for. `names`: the policy's id as `model`,
    which the server must list; `vllm`: likewise, and one that it does not list is loaded by
    /v1/load_lora_adapter from the registry's folder; `paths`: by `adapters_at`; `llama.cpp`: by
    `lora` among /lora-adapters; `none`: not at all."""
    adapters_at: str = "/srv/policies/{id}"
    """`paths`: where the server finds a policy merged into its base (`transformers serve`, which
    reads no LoRA adapters)."""
    temperature: float = Field(0.7, ge=0)
    top_p: Share = 0.9
    repetition_penalty: float = Field(1.1, ge=1)
    max_new_tokens: int = Field(140, ge=8)


class SpeakerEngine(_Section):
    engine: str = "hibari"
    voice: str | None = None
    speed: Positive = 1.0


class SentimentEngine(_Section):
    engine: str = "vader"


class Perception(_Section):
    """Faces and facial affect."""

    enabled: bool = True
    detector: str = "blazeface"
    """`blazeface`, or `mediapipe`: the same model by Google's library, which reports its use to
    play.googleapis.com and has no switch against it."""
    detector_model: str = "blazeface-short-range"
    detector_score: Share = 0.7
    min_face_px: int = Field(48, ge=8)
    classifier: str = "mini-xception"
    classifier_model: str = "mini-xception-fer"
    frames_hz: Positive = 5.0
    """Frames analysed a second."""
    window_s: Positive = 2.0
    hop_s: Positive = 1.0
    min_coverage: Share = 0.5
    positive_rule: Literal["mean_probability", "majority", "argmax", "valence"] = "mean_probability"
    """How a window is called positive: mean P(positive) over its frames, the majority of frames
    over the threshold, the most likely class of the mean, or mean valence over the threshold."""
    positive_threshold: float = Field(0.7, ge=-1, le=1)


class Labels(_Section):
    """How an agent turn gets the listener's label Γ from the windows."""

    rule: Literal["any", "majority", "share"] = "majority"
    share: Share = 0.5
    """`share`: label 1 when at least this share of the seen windows is positive."""
    min_coverage: Share = 0.5
    """Seen windows under this share leave the label unknown."""
    max_after_s: float = Field(10.0, ge=0)
    """How long after the agent's turn the listener's face still counts."""


class Store(_Section):
    url: str = "sqlite:///{data}/sessions.sqlite3"
    """SQLAlchemy URL; `{data}` is the data directory ($GELI_DATA, else ~/.local/share/geli)."""
    journal_mb: Positive = 64.0
    """PostgreSQL: how much may wait on this machine's disk while the database is away."""


class Retention(_Section):
    """How long sessions may be kept, by what their person agreed to; `geli sessions purge`."""

    keep_days: Days = 180
    """Sessions that are only kept; 0: for good."""
    learn_days: Days = 730
    """Sessions that learning may read; 0: for good."""

    @property
    def days(self) -> dict[Consent, float | None]:
        """Days by class; None: for good."""
        return {Consent.KEEP: self.keep_days or None, Consent.LEARN: self.learn_days or None}


class Models(_Section):
    """Where weights lie."""

    cache: Path | None = None
    """Default: $GELI_CACHE, else ~/.cache/geli. Can be shared between users."""
    paths: dict[str, Path] = Field(default_factory=dict)
    """Artefact name to a local file or directory that is used instead of a download."""


class Logging(_Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Config(_Section):
    """The whole configuration of one process."""

    profile: str = "cpu"
    server: Server = Server()
    limits: Limits = Limits()
    turn_taking: TurnTaking = TurnTaking()
    dialogue: Dialogue = Dialogue()
    voice_activity: VoiceActivityEngine = VoiceActivityEngine()
    end_of_turn: EndOfTurnEngine = EndOfTurnEngine()
    recognizer: RecognizerEngine = RecognizerEngine()
    responder: ResponderEngine = ResponderEngine()
    speaker: SpeakerEngine = SpeakerEngine()
    sentiment: SentimentEngine = SentimentEngine()
    perception: Perception = Perception()
    labels: Labels = Labels()
    store: Store = Store()
    retention: Retention = Retention()
    models: Models = Models()
    logging: Logging = Logging()
    telemetry: Telemetry = Telemetry()
    reward: Reward = Reward()
    policy: Policy = Policy()
    gates: Gates = Gates()
    rollout: Rollout = Rollout()
    judge: Judge = Judge()

    @model_validator(mode="after")
    def _address_is_safe(self) -> Config:
        server = self.server
        if not is_loopback(server.host):
            needed = ["tls_certificate", "tls_key"] if not server.trusted_proxies else []
            needed += ["access_token"] if not server.person_tokens else []
            missing = [name for name in needed if getattr(server, name) is None]
            if missing:
                raise ValueError(
                    f"server.host = {server.host!r} is not loopback and needs "
                    + ", ".join(f"server.{name}" for name in missing)
                )
        if not is_loopback(server.internal_host) and server.cluster_key is None:
            raise ValueError(
                f"server.internal_host = {server.internal_host!r} is not loopback and needs "
                "server.cluster_key"
            )
        if server.turn_urls and server.turn_secret is None:
            raise ValueError("server.turn_urls needs server.turn_secret")
        if server.turn_secret is not None and not server.turn_urls:
            raise ValueError("server.turn_secret needs server.turn_urls")
        return self

    def digest(self) -> str:
        """SHA-256 (first 16 hex digits) of what shapes a call; secrets and paths left out."""
        content = self.model_dump(mode="json", exclude=NOT_THE_CALL)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def is_loopback(host: str) -> bool:
    """Whether `host` is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # any other name may lead elsewhere, 127.example.org too


def profiles() -> dict[str, Path]:
    """The packaged profiles by name."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    raise ConfigError("the packaged profiles are missing", "reinstall geli-agent")


def load(name: str | Path = "cpu", overrides: typing.Sequence[str] = ()) -> Config:
    """Read a profile or a file, apply `section.key=value` overrides, and check everything.

    Raises:
        ConfigError: no such file, bad TOML, an unknown key or a value out of its range.
    """
    path = _find(name)
    data = _read(path)
    base = data.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or base not in profiles():
            raise ConfigError(
                f"{path}: base = {base!r} is no profile", f"one of {', '.join(profiles())}"
            )
        data = _merged(_read(profiles()[base]), data)
    whole = data
    for override in overrides:
        whole = _merged(whole, _override(override))
    try:
        return Config.model_validate(whole)
    except ValidationError as error:
        source = str(path) if _is_wrong(data) else "--set"
        raise ConfigError(*_explain(source, error)) from None


def _is_wrong(data: dict[str, Any]) -> bool:
    try:
        Config.model_validate(data)
    except ValidationError:
        return True
    return False


def _find(name: str | Path) -> Path:
    if str(name) in profiles():
        return profiles()[str(name)]
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"no config {str(name)!r}", f"name a TOML file or one of {', '.join(profiles())}"
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out


def _override(text: str) -> dict[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not section.key=value")
    try:
        value = tomllib.loads(f"x = {raw}")["x"]
    except tomllib.TOMLDecodeError:
        value = raw
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def _explain(path: str, error: ValidationError) -> tuple[str, str]:
    first = error.errors()[0]
    loc = [str(part) for part in first["loc"]]
    key = ".".join(loc)
    if first["type"] == "extra_forbidden":
        valid = _keys(loc[:-1])
        close = difflib.get_close_matches(loc[-1], valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{path}: unknown key {key!r}", f"{hint}valid here: {', '.join(valid)}"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{path}: {message}", ""
    value = "…" if SECRET & set(loc) else repr(first["input"])
    return f"{path}: {key} = {value}: {message}", ""


def _keys(loc: list[str]) -> list[str]:
    model: Any = Config
    for part in loc:
        if part.isdecimal():
            continue  # a place in a list: its model is the list's
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if isinstance(annotation, types.GenericAlias):
            annotation = typing.get_args(annotation)[0]
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
