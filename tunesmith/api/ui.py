"""The web app's files, for whoever asks: they hold nothing of this server.

Stands before the gate. The files are read once and served from memory, so a path can never lead
out of their directory; every address of a screen gets the same page, which the app then fills.
"""

from __future__ import annotations

import gzip
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

# The first part of the addresses of screens; web/src/router.tsx has the rest of them.
SCREENS = frozenset(
    {
        "",
        "compare",
        "data",
        "evals",
        "jobs",
        "limits",
        "models",
        "playground",
        "settings",
        "signin",
        "usage",
    }
)
INDEX = "index.html"
# Names in it hold a hash of the content: what was fetched once is right for ever.
HASHED = "assets/"
# fonts and pictures are compressed already.
COMPRESSED = (".html", ".js", ".css", ".svg")

POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
SECURITY = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    # Where a browser sends neither Origin nor Sec-Fetch-Site, login.py asks for the referrer.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}

MISSING = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tunesmith</title></head><body>
<h1>Tunesmith is running. Its web app is not part of this installation.</h1>
<p>The API answers at <code>/v1</code> as always.</p>
<p>To get the web app: <code>make ui</code> in a checkout, or install the package again where npm's
registry can be reached; then start the server again.</p>
</body></html>
"""


@dataclass(frozen=True)
class UiFile:
    name: str
    content: bytes

    @cached_property
    def zipped(self) -> bytes | None:
        return gzip.compress(self.content, mtime=0) if self.name.endswith(COMPRESSED) else None

    @cached_property
    def headers(self) -> dict[str, str]:
        kind = mimetypes.guess_type(self.name)[0] or "application/octet-stream"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        lasting = self.name.startswith(HASHED)
        return SECURITY | {
            "content-type": kind,
            "cache-control": "public, max-age=31536000, immutable" if lasting else "no-cache",
            "etag": f'"{sha256(self.content).hexdigest()[:16]}"',
            "vary": "accept-encoding",
        }


def read_bundle(directory: Path) -> dict[str, UiFile]:
    """The built files by their path under `directory`; none if they were not built."""
    if not (directory / INDEX).is_file():
        return {}
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name[0] != "."]
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    return {name: UiFile(name, path.read_bytes()) for name, path in names.items()}


class Ui:
    """Answers for the web app's addresses; everything else goes on to `app`."""

    def __init__(self, app: ASGIApp, bundle: Mapping[str, UiFile]) -> None:
        self.app = app
        self.bundle = bundle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope) if scope["type"] == "http" else None
        await (answer or self.app)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return None
        path = scope["path"].removeprefix("/")
        file = self.bundle.get(path)
        if file is None:
            if path.split("/")[0] not in SCREENS:
                return None
            file = self.bundle.get(INDEX)
        if file is None:
            return Response(MISSING, media_type="text/html", headers=SECURITY)
        return respond(file, Headers(scope=scope))


def respond(file: UiFile, headers: Headers) -> Response:
    if file.headers["etag"] in headers.get("if-none-match", ""):
        return Response(status_code=304, headers=file.headers)
    if file.zipped is not None and "gzip" in headers.get("accept-encoding", ""):
        return Response(file.zipped, headers=file.headers | {"content-encoding": "gzip"})
    return Response(file.content, headers=file.headers)
