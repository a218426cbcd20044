"""What stands around every request: no answer without a key, none without a request id.

Plain ASGI, outside the framework, so that no route can be forgotten: what a request needs stands
in routes.py, and what does not stand there is closed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.access import Caller
from tunesmith.api.failures import answer, invalid_url, translate, unexpected
from tunesmith.api.kept import KEPT, KeptAnswers
from tunesmith.api.keyring import Keyring
from tunesmith.api.routes import PUBLIC, ROUTES, route_of
from tunesmith.errors import Forbidden, TunesmithError, Unauthorized
from tunesmith.ids import REQUEST, Rng, new_id
from tunesmith.ops.telemetry import Metrics
from tunesmith.ops.tracing import Tracing

log = logging.getLogger("tunesmith.api")

# A client that is still sending reads no answer; this long we go on listening before we hang up.
LINGER_S = 10.0
OPENAI_VERSION = "2020-10-01"


def mask(key: str) -> str:
    """A key as it may be shown: "sk-...wxyz"."""
    return f"{key[:3]}...{key[-4:]}" if len(key) >= 16 else "***"


class Gate:
    """Lets a request pass to `app` only with a key that may make it.

    `version` changes with the database; while it does not, light answers are given again.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, version: Callable[[], int]) -> None:
        self.app = app
        self.keyring = keyring
        self.kept = KeptAnswers(app, version)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self.app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            # A preflight carries no key. It gets an answer, and no permission for other origins.
            await Response(status_code=204)(scope, receive, send)
        else:
            try:
                caller = await self._identify(Headers(scope=scope))
                scope["state"]["caller"] = caller
                path = permit(caller, scope["method"], scope["path"])
            except TunesmithError as error:
                await answer(translate(error))(scope, receive, send)
            else:
                kept = scope["method"] == "GET" and path in KEPT
                await (self.kept if kept else self.app)(scope, receive, send)

    async def _identify(self, headers: Headers) -> Caller:
        if "cookie" in headers and "authorization" not in headers:
            of_session = await self.keyring.session_caller(headers)
            if of_session is not None:
                return of_session
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip()
        challenge = {"www-authenticate": "Bearer"}
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized(
                "You didn't provide an API key. Send it in the Authorization header: "
                "Authorization: Bearer YOUR_KEY. `tunesmith keys create` makes one.",
                headers=challenge,
            )
        caller = await self.keyring.caller(key)
        if caller is None:
            raise Unauthorized(
                f"Incorrect API key provided: {mask(key)}. "
                "`tunesmith keys create` on the server makes a new one.",
                code="invalid_api_key",
                headers=challenge,
            )
        project = headers.get("openai-project")
        if project is not None and caller.project_id not in (None, project):
            raise Unauthorized(
                "The OpenAI-Project header names another project than the one this key is of. "
                "Leave it out, or use a key of that project.",
                code="mismatched_project",
            )
        return caller


def permit(caller: Caller, method: str, path: str) -> str:
    """The route asked for, as routes.py has it.

    Raises Forbidden for what the caller may not do, NotFound for what is not there at all.
    """
    route = route_of(method, path)
    if route is None:
        raise invalid_url(method, path)
    needed = ROUTES[method, route]
    if needed not in caller.scopes:
        raise Forbidden(
            "You have insufficient permissions for this operation. "
            f"Missing scopes: {needed}. This key's role is {caller.role}"
            + (" of the organisation" if caller.project_id is None else " of its project")
            + "; an owner can give it another, or make a key with this scope.",
            code="missing_scope",
        )
    return route


class Frame:
    """Gives each answer of `app` its id, counts and logs it, and answers for what crashed."""

    def __init__(
        self, app: ASGIApp, rng: Rng, metrics: Metrics, organization: str, tracing: Tracing
    ) -> None:
        self.app = app
        self.rng = rng
        self.metrics = metrics
        self.organization = organization
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, new_id(REQUEST, self.rng), self.organization)
        traced = self.tracing.request(Headers(scope=scope), exchange.request_id)
        with self.metrics.in_flight.track_inprogress(), traced as span:
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except Exception:
                log.exception("request failed", extra={"fields": exchange.fields()})
                if exchange.status is None:
                    await answer(unexpected())(scope, exchange.receive, exchange.send)
            self.tracing.end_request(span, scope["method"], _route(scope), exchange.status)
        self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: Exchange) -> None:
        route = _route(scope)
        status = str(exchange.status or "gone")
        elapsed_s = time.perf_counter() - exchange.started
        self.metrics.requests.labels(scope["method"], route, status).observe(elapsed_s)
        level = logging.DEBUG if scope["path"] in PUBLIC else logging.INFO
        fields = exchange.fields() | {"status": status, "ms": round(elapsed_s * 1000, 1)}
        log.log(level, "request", extra={"fields": fields})


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


class Exchange:
    """One request and its answer, seen from outside."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, organization: str
    ) -> None:
        self.scope = scope
        self.started = time.perf_counter()
        self.status: int | None = None
        self.request_id = request_id
        self._receive = receive
        self._send = send
        self._organization = organization
        headers = Headers(scope=scope)
        self._unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        scope.setdefault("state", {})["request_id"] = request_id

    def fields(self) -> dict[str, str | None]:
        caller: Caller | None = self.scope["state"].get("caller")
        return {
            "request_id": self.request_id,
            "method": self.scope["method"],
            "path": self.scope["path"],
            "key_id": caller.key_id if caller else None,
            "project_id": caller.project_id if caller else None,
        }

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            # 0.28 clients take a 0 for "not told".
            elapsed_ms = max(1, round((time.perf_counter() - self.started) * 1000))
            headers["x-request-id"] = self.request_id
            headers["openai-processing-ms"] = str(elapsed_ms)
            headers["openai-version"] = OPENAI_VERSION
            headers["openai-organization"] = self._organization
            # Of limits: what a route has found out before it answered or failed.
            for name, value in self.scope["state"].get("reply_headers", {}).items():
                headers[name] = value
        elif not message.get("more_body", False) and self._unread:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Read on what the refused client is still sending, so that it meets no reset."""
        with anyio.move_on_after(LINGER_S):
            while self._unread:
                await self.receive()
