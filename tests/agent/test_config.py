"""The configuration: what it takes, and the one line that says what is wrong with the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, is_loopback, load, profiles
from agent.errors import ConfigError

pytestmark = pytest.mark.unit

SAFE = {
    "host": "0.0.0.0",
    "tls_certificate": "c.pem",
    "tls_key": "k.pem",
    "access_token": "0123456789abcdef",
}


def refused(name: str | Path = "cpu", *overrides: str) -> str:
    """The one line that says why."""
    with pytest.raises(ConfigError) as error:
        load(name, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_profiles_are_valid() -> None:
    assert list(profiles()) == ["cpu", "gpu", "paper"]
    for name in profiles():
        assert load(name).profile == name
    assert load("gpu").recognizer.device == "cuda"


def test_the_default_profile_is_safe_and_local() -> None:
    config = load()
    assert (config.profile, config.server.host, config.server.access_token) == (
        "cpu",
        "127.0.0.1",
        None,
    )


def test_a_file_overrides_its_base(tmp_path: Path) -> None:
    path = toml(tmp_path, 'base = "gpu"\n[recognizer]\nthreads = 7\n[labels]\nrule = "any"\n')
    config = load(path, ["recognizer.language=de"])
    gpu = load("gpu")
    changed = {"threads": 7, "language": "de"}
    assert config.recognizer == gpu.recognizer.model_copy(update=changed)
    assert (config.labels.rule, config.responder) == ("any", gpu.responder)


def test_a_file_without_a_base_has_the_built_in_defaults(tmp_path: Path) -> None:
    assert load(toml(tmp_path, "")) == Config()
    assert load(str(toml(tmp_path, "[server]\nport = 0\n"))).server.port == 0


@pytest.mark.parametrize("base", ['"tpu"', "3", '["cpu"]', "{cpu = 1}"])
def test_an_unknown_base(tmp_path: Path, base: str) -> None:
    path = toml(tmp_path, f"base = {base}")
    line = refused(path)
    assert line.startswith(f"{path}: base = ")
    assert line.endswith("is no profile — one of cpu, gpu, paper")


def test_no_such_file(tmp_path: Path) -> None:
    assert refused("tpu") == "no config 'tpu' — name a TOML file or one of cpu, gpu, paper"
    assert refused(tmp_path).startswith(f"no config '{tmp_path}'")


def test_no_toml(tmp_path: Path) -> None:
    path = toml(tmp_path, "[server\nport = 1")
    assert refused(path).startswith(f"{path}: not valid TOML: ")
    path.write_bytes(b'x = "\xff"')
    assert refused(path).startswith(f"{path}: not valid TOML: ")


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[sever]", "sever", "did you mean 'server'? valid here: profile, server, limits"),
        ("[server]\nprot = 1", "server.prot", "did you mean 'port'? valid here: host, port, tls_"),
        ("[labels]\nxyzzy = 1", "labels.xyzzy", "valid here: rule, share, min_coverage, max_"),
        (
            '[[server.ice_servers]]\nurls = ["stun:a"]\nuser = "x"',
            "server.ice_servers.0.user",
            "did you mean 'username'? valid here: urls, username, credential",
        ),
    ],
)
def test_an_unknown_key(tmp_path: Path, text: str, key: str, hint: str) -> None:
    path = toml(tmp_path, text)
    assert refused(path).startswith(f"{path}: unknown key {key!r} — {hint}")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("server.port=70000", "server.port = 70000: Input should be less than or equal to 65535"),
        ("labels.rule=all", "labels.rule = 'all': Input should be 'any', 'majority' or 'share'"),
        ("logging.level=LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("labels.share=1.5", "labels.share = 1.5: Input should be less than or equal to 1"),
        ("perception.frames_hz=0", "perception.frames_hz = 0: "),
        ("perception.frames_hz=nan", "perception.frames_hz = nan: "),
        ("limits.total_s=inf", "limits.total_s = inf: "),
        ("dialogue.idle_prompts=[]", "dialogue.idle_prompts = []: "),
        ("dialogue.greeting=true", "dialogue.greeting = True: "),
        ("responder=3", "responder = 3: "),
        ("server.port=", "server.port = '': "),
    ],
)
def test_a_value_out_of_its_range(override: str, says: str) -> None:
    line = refused("cpu", override)
    assert line.startswith("--set: ")
    assert says in line


def test_the_source_of_a_mistake_is_named(tmp_path: Path) -> None:
    path = toml(tmp_path, 'base = "cpu"\n[server]\nport = -1\n')
    wrong = "server.port = -1: Input should be greater than or equal to 0"
    assert refused(path) == f"{path}: {wrong}"
    assert refused("cpu", "server.port=-1") == f"--set: {wrong}"


def test_set_takes_toml_and_plain_words() -> None:
    config = load(
        "cpu",
        [
            "server.port=8000",
            "server.port=8001",  # the last one counts
            "labels.rule=any",
            "labels.share=0.25",
            "perception.enabled=false",
            "dialogue.greeting=Hello = you, there",
            'dialogue.goodbye="quoted"',
            'server.allowed_origins=["https://a.example"]',
            " recognizer.language =de",
            "models.paths.whisper-tiny=/w",
        ],
    )
    assert config.server.port == 8001
    assert (config.labels.rule, config.labels.share) == ("any", 0.25)
    assert config.perception.enabled is False
    assert config.dialogue.greeting == "Hello = you, there"
    assert config.dialogue.goodbye == "quoted"
    assert config.server.allowed_origins == ["https://a.example"]
    assert config.recognizer.language == "de"
    assert config.models.paths == {"whisper-tiny": Path("/w")}
    assert load("cpu").server.port == 7860


@pytest.mark.parametrize("text", ["server.port", "=5", " =5", ""])
def test_set_needs_a_key_and_a_value(text: str) -> None:
    assert refused("cpu", text) == f"--set {text!r} is not section.key=value"


@pytest.mark.parametrize("text", ["a..b=1", ".=1", "server.=1", "server.port.x=1"])
def test_set_of_no_key(text: str) -> None:
    assert refused("cpu", text).startswith("--set: ")


@pytest.mark.parametrize("missing", ["tls_certificate", "tls_key", "access_token"])
def test_another_address_needs_tls_and_a_token(missing: str) -> None:
    Config.model_validate({"server": SAFE})
    given = [f"server.{key}={value}" for key, value in SAFE.items() if key != missing]
    line = refused("cpu", *given)
    assert f"server.host = '0.0.0.0' is not loopback and needs server.{missing}" in line


def test_all_that_another_address_needs_is_named() -> None:
    assert refused("cpu", "server.host=192.168.1.5").endswith(
        "needs server.tls_certificate, server.tls_key, server.access_token"
    )


def test_a_short_token_is_refused_and_not_shown() -> None:
    line = refused("cpu", "server.access_token=hunter2")
    assert "server.access_token" in line and "at least 16" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.example.org", False),  # a name that somebody else answers for
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def digest(**sections: Any) -> str:
    return Config.model_validate(sections).digest()


def test_the_digest_tells_settings_apart() -> None:
    plain = digest()
    assert len(plain) == 16 and int(plain, 16) >= 0
    assert plain == Config().digest()
    for changed in (
        {"labels": {"rule": "any"}},
        {"dialogue": {"greeting": "Hi."}},
        {"turn_taking": {"pause_s": 0.2}},
        {"responder": {"model": "other"}},
        {"perception": {"enabled": False}},
    ):
        assert digest(**changed) != plain, changed


def test_the_digest_knows_no_secret_and_no_place() -> None:
    for changed in (
        {"server": SAFE},
        {"server": {"ice_servers": [{"urls": ["turn:a"], "credential": "secret"}]}},
        {"store": {"url": "postgresql://me:secret@host/x"}},
        {"models": {"cache": "/somewhere"}},
        {"logging": {"level": "DEBUG"}},
    ):
        assert digest(**changed) == digest(), changed


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().server.port = 1
