"""Time-limited TURN credentials (draft-uberti-behave-turn-rest-00; coturn's `use-auth-secret`).

    username = <unix time of the end>:<user>
    credential = base64(HMAC-SHA1(secret, username))

The server and coturn share the secret; a caller gets credentials that end, and no account of his
own. The user part is random: what the relay logs names nobody.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time

from agent.config import IceServer, Server


def credentials(secret: str, ttl_s: float, now: float, user: str) -> tuple[str, str]:
    """Username and credential that hold from `now` (unix time) for `ttl_s` seconds."""
    username = f"{round(now + ttl_s)}:{user}"
    mac = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(mac).decode()


def ice_servers(server: Server) -> list[IceServer]:
    """The configured STUN and TURN servers, and the relay with credentials for one caller."""
    if server.turn_secret is None:
        return list(server.ice_servers)
    username, credential = credentials(
        server.turn_secret, server.turn_ttl_s, time.time(), secrets.token_hex(4)
    )
    relay = IceServer(urls=server.turn_urls, username=username, credential=credential)
    return [*server.ice_servers, relay]
