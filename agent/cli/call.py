"""`geli call`: serve the page and hold calls in the browser."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import configured

if TYPE_CHECKING:
    import socket

    from agent.config import Config, Server
    from agent.store import Store


@click.command()
@click.option("--host", metavar="ADDRESS", help="where to listen (default: server.host)")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="0 takes a free one")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="processes (default: 1)")
@click.option("--open", "open_page", is_flag=True, help="open the page in the default browser")
@configured
def command(
    config: Any, host: str | None, port: int | None, workers: int | None, open_page: bool
) -> None:
    """Serve the page and hold calls in the browser. Ctrl-C ends all calls and the server; SIGTERM
    lets running calls finish first (server.drain_s)."""
    from agent import capacity, log, weights
    from agent.engines import table
    from agent.store import Store
    from agent.web.rtc import check_ice_servers

    config = _with_server(config, host=host, port=port, workers=workers)
    log.configure(config.logging)
    check_tls(config.server)
    check_ice_servers(config)
    table.check(config)
    config = capacity.resolved(config)
    listening = bind(config.server)  # before anything slow, so that a taken port is said at once
    url = page_url(config, listening)

    def opened() -> None:
        click.echo(f"open {url} (Ctrl-C ends all calls and the server)")
        if open_page:
            click.launch(url)

    try:
        weights.ensure_all(config)
        with Store.open(config.store.url, journal_mb=config.store.journal_mb) as store:
            for session_id in store.close_crashed(config.labels):
                click.echo(f"closed session {session_id}, which a crash left open", err=True)
            _say_if_down(config)
            click.echo("loading the engines …", err=True)
            _serve(config, store, listening, opened)
    finally:
        listening.close()


def _serve(config: Config, store: Store, listening: socket.socket, opened: Any) -> None:
    from agent.serve import bind_internal, bind_metrics, serve

    metrics = bind_metrics(config)
    if config.server.workers > 1:
        from agent.workers import Workers

        def tell(line: str) -> None:
            click.echo(line, err=True)

        Workers(config, listening, store, opened, tell, metrics).run()
        return
    import asyncio

    internal = bind_internal(config)
    asyncio.run(serve(config, store, listening, opened, internal=internal, metrics=metrics))


def _with_server(config: Config, **options: str | int | None) -> Config:
    """`config` with what the options say of `server`; checked as if it were in the file.

    Raises:
        ConfigError: an address that is not safe as configured.
    """
    from pydantic import ValidationError

    from agent.errors import ConfigError

    given = {key: value for key, value in options.items() if value is not None}
    if not given:
        return config
    data = config.model_dump()
    data["server"] |= given
    try:
        return type(config).model_validate(data)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def check_tls(server: Server) -> None:
    """Load the TLS files once, so that a wrong one is a line and not a traceback.

    Raises:
        ConfigError: a file is missing, unreadable, or no certificate with its key.
    """
    import ssl

    from agent.errors import ConfigError

    certificate, key = server.tls_certificate, server.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        missing = "server.tls_certificate" if certificate is None else "server.tls_key"
        raise ConfigError(f"{missing} is missing", "TLS needs a certificate and its key")
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"server.{name}: {path}: {error.strerror}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate, key, password=lambda: ""
        )
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            f"server.tls_certificate = {certificate}, server.tls_key = {key}: not usable for TLS",
            "give a PEM certificate and its own PEM key without a passphrase",
        ) from None


def bind(server: Server) -> socket.socket:
    """Take the address.

    Raises:
        ConfigError: it is in use, not this machine's, or not allowed.
    """
    import errno
    import socket

    from agent.errors import ConfigError

    where = f"{server.host}:{server.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise ConfigError(
            f"server.host = {server.host!r} is no address of this machine", "try 127.0.0.1"
        ) from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
        listening.set_inheritable(False)
    except OSError as error:
        listening.close()
        hints = {
            errno.EADDRINUSE: (f"{where} is in use", "choose another --port, 0 takes a free one"),
            errno.EACCES: (f"{where} is not allowed", "take a port from 1024 up"),
            errno.EADDRNOTAVAIL: (f"{where} is no address of this machine", "try 127.0.0.1"),
        }
        known = (f"{where}: {error.strerror}", "")
        raise ConfigError(*hints.get(error.errno or 0, known)) from None
    return listening


def page_url(config: Config, listening: socket.socket) -> str:
    """Where the page can be opened."""
    import socket

    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (every address: name one a person can type)
        host = socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    scheme = "https" if config.server.tls_certificate else "http"
    return f"{scheme}://{host}:{port}/"


def _say_if_down(config: Config) -> None:
    """A remote policy that does not answer now may do so later: say it and serve."""
    import httpx

    url = config.responder.url
    if config.responder.engine != "openai" or url is None:
        return
    try:
        key = os.environ.get(config.responder.api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = httpx.get(f"{url.rstrip('/')}/models", headers=headers, timeout=3.0)
        if answer.status_code in (401, 403):
            click.echo(
                f"geli: the policy at {url} refuses the key (HTTP {answer.status_code}); put the "
                f"right one into {config.responder.api_key_env}; until then calls apologise",
                err=True,
            )
    except httpx.HTTPError as error:
        click.echo(
            f"geli: the policy at {url} does not answer ({type(error).__name__}); "
            "calls will greet, then apologise, until it does",
            err=True,
        )
