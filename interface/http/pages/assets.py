"""Static files of the pages, read once at start: nothing is ever asked from another host.

Changes when another kind of file is served.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response

from interface.http.problems import Problem
from interface.http.rights import Right
from interface.http.routes import Routes

FOLDER = Path(__file__).parent / "static"
_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
          ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8",
          ".webmanifest": "application/manifest+json"}

routes = Routes(in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, media type and entity tag."""

    body: bytes
    media_type: str
    etag: str


def _read() -> dict[str, Asset]:
    files = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix in _KINDS:
            body = path.read_bytes()
            files[path.relative_to(FOLDER).as_posix()] = Asset(
                body, _KINDS[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return files


_ASSETS = _read()


@routes.get("/static/{name:path}", right=Right.OPEN)
async def asset(name: str, request: Request) -> Response:
    """Return one file; a browser that has it already gets 304."""
    found = _ASSETS.get(name)
    if found is None:
        raise Problem("not-found")
    headers = {"ETag": found.etag, "Cache-Control": "public, max-age=300"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
