"""/v1/tunesmith/session: a browser's session in the place of a key.

The cookie says which key it stands for and until when, signed with the server's secret; nothing
is stored. It opens what its key opens, as long as that is not revoked, and only to requests that
this server's own pages make: a page of another origin can make a browser send a request, but not
give it our origin.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from starlette.datastructures import Headers

from tunesmith.access import Caller
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.store.repo import keys
from tunesmith.wire.session import Session, SessionEnded

router = APIRouter(prefix="/v1/tunesmith/session")

LIFETIME_S = 7 * 24 * 3600


@dataclass(frozen=True)
class Signer:
    """Makes cookies and reads them. `pepper`: the secret that keys are hashed with."""

    pepper: bytes

    @classmethod
    def load(cls, data_dir: Path) -> Signer:
        return cls(keys.load_pepper(data_dir))

    @property
    def cookie(self) -> str:
        """The cookie's name: another for each server, as browsers mix up the ports of a host."""
        return f"tunesmith-{self._mac('cookie name')[:12]}"

    def sign(self, key_id: str, expires_at: int) -> str:
        text = f"{key_id}.{expires_at}"
        return f"{text}.{self._mac(text)}"

    def read(self, value: str, now: int) -> str | None:
        """The key's id, if the value is one of ours and still holds."""
        text, _, mac = value.rpartition(".")
        key_id, _, expires_at = text.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(text).encode()):
            return None
        return key_id if int(expires_at) > now else None

    def _mac(self, text: str) -> str:
        message = b"session:" + text.encode("utf-8", "surrogateescape")
        return hmac.new(self.pepper, message, hashlib.sha256).hexdigest()


def session_key(signer: Signer, headers: Headers, now: int) -> str | None:
    """The id of the key that a request's session stands for; whether that is in use is not
    looked at."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(signer.cookie)
    except CookieError:
        return None
    if morsel is None or not from_own_pages(headers):
        return None
    return signer.read(morsel.value, now)


def from_own_pages(headers: Headers) -> bool:
    """Whether a browser says that a page of this server made the request.

    Sec-Fetch-Site and Origin must agree where they are sent. Browsers send neither with a GET
    over plain HTTP; then the referrer has to be ours.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        origin = headers.get("referer", "null")
    if site is not None and site != "same-origin":
        return False
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


@router.post("")
def sign_in(request: Request, response: Response, svc: Svc, caller: CallerDep) -> Session:
    """Trades the request's key, or the link that `tunesmith serve` printed, for a session."""
    expires_at = int(svc.clock.now()) + LIFETIME_S
    signer = Signer.load(svc.settings.data_dir)
    response.set_cookie(
        signer.cookie,
        signer.sign(caller.key_id, expires_at),
        max_age=LIFETIME_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return _session(svc, caller, expires_at)


@router.get("")
def show_session(svc: Svc, caller: CallerDep) -> Session:
    """Which key this request was let in with."""
    return _session(svc, caller, None)


@router.delete("")
def sign_out(response: Response, svc: Svc) -> SessionEnded:
    """Makes the browser forget the session."""
    signer = Signer.load(svc.settings.data_dir)
    response.delete_cookie(signer.cookie, httponly=True, samesite="strict")
    return SessionEnded()


def _session(svc: Services, caller: Caller, expires_at: int | None) -> Session:
    with svc.db.read() as conn:
        row = keys.get(conn, caller.project_id, caller.key_id)
    assert row is not None  # the gate has just found it
    return Session(key_id=row.id, key_name=row.name, key=row.masked, expires_at=expires_at)
