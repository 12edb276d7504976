"""nginx with TLS in front of a server, as programs meet it: it hangs up on connections that are idle for long."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.certificates import authority, trusting

_CONFIG = """
daemon off; pid {home}/pid; error_log stderr warn; worker_processes 1; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {home}/chain.pem; ssl_certificate_key {home}/key.pem;
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout {idle}s;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """It runs."""

    url: str
    tls: ssl.SSLContext
    """Trusts its certificate."""


@asynccontextmanager
async def nginx(home: Path, upstream: int, *, idle: int) -> AsyncIterator[Nginx]:
    """Run nginx before the server at port ``upstream``; it drops what is idle for ``idle`` seconds."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    certificate = authority().issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(home / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(home / "chain.pem", append=True)
    user = "user root root;" if os.geteuid() == 0 else ""  # the directory of a test is open to its owner alone
    port = _free_port()
    config = home / "nginx.conf"
    config.write_text(_CONFIG.format(home=home, user=user, port=port, upstream=upstream, idle=idle))
    log = (home / "error.log").open("wb")
    process = await asyncio.create_subprocess_exec(program, "-c", str(config), "-e", "stderr", stderr=log)
    log.close()
    try:
        await _listening(port, process, home / "error.log")
        yield Nginx(f"wss://127.0.0.1:{port}/", trusting())
    finally:
        if process.returncode is None:
            process.terminate()  # its workers go with it
        await process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(5):
        while True:
            assert process.returncode is None, f"see {log}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.transport.abort()
            return
