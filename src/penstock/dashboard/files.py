"""The page and what it loads: files of the package, nothing else."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
INDEX = "index.html"


def file_routes() -> list[Route]:
    """A route for each file; the page is at ``/``. They are read once."""
    folder = files("penstock.dashboard") / "static"
    return [_route(one.name, one.read_bytes()) for one in sorted(folder.iterdir(), key=lambda one: one.name)]


def _route(name: str, content: bytes) -> Route:
    kind = _KINDS[name[name.rindex(".") :]]
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "Cache-Control": "no-cache"}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return Route("/" if name == INDEX else f"/{name}", answer, methods=["GET"])
