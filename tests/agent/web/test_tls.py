"""Over TLS: the page is served, the cookie is Secure, and a policy that is down is said."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import sys
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.agent.web.test_serve import ROOT, SCRIPTED, refused

pytestmark = pytest.mark.transport

TOKEN = "0123456789abcdef"  # noqa: S105


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "c.pem", folder / "k.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


async def test_tls_and_a_policy_that_is_down(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    sets = [
        f"server.tls_certificate={pem}", f"server.tls_key={key}",
        f'server.access_token="{TOKEN}"', "responder.engine=openai",
        'responder.url="http://127.0.0.1:9/v1"', "logging.format=json",
    ]  # fmt: skip
    words = [word for one in sets for word in ("--set", one)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPTED, "--port", "0", "--host", "0.0.0.0", *words,  # noqa: S104
        cwd=ROOT, env=os.environ | {"GELI_DATA": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        line = (await child.stdout.readline()).decode()
        assert line.startswith(f"open https://{socket.gethostname()}:")
        url = f"https://127.0.0.1:{httpx.URL(line.split()[1]).port}/"
        async with httpx.AsyncClient(base_url=url, verify=False) as http:  # noqa: S501
            assert (await http.get("/api/info")).status_code == 401
            origin = {"Origin": url.rstrip("/")}
            entered = await http.post("/api/token", json={"token": TOKEN}, headers=origin)
            assert entered.status_code == 204
            assert "Secure" in entered.headers["set-cookie"]
            assert (await http.get("/api/info")).status_code == 200
            plain = {"Origin": url.rstrip("/").replace("https", "http")}
            assert (await http.post("/api/offer", json={}, headers=plain)).status_code == 403
        child.terminate()
        _, errors = await asyncio.wait_for(child.communicate(), 15)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0
    assert "the policy at http://127.0.0.1:9/v1 does not answer" in errors.decode()
    assert TOKEN not in errors.decode()


def test_addresses_of_other_machines(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    sets = [
        f"server.tls_certificate={pem}", f"server.tls_key={key}",
        f'server.access_token="{TOKEN}"',
    ]  # fmt: skip
    words = [word for one in sets for word in ("--set", one)]
    for host in ("192.0.2.1", "a..b"):  # RFC 5737's example; no name at all
        line = refused("--host", host, *words, data=tmp_path)
        assert "is no address of this machine" in line
        assert TOKEN not in line
