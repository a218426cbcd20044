"""JSON bodies: read within a limit, and nothing in them that only Python would accept."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from tunesmith.data import strict_json
from tunesmith.data.strict_json import JsonError
from tunesmith.errors import BadRequest, TooLarge

# Schemas of tools nest; no honest request nests deeper.
MAX_DEPTH = 100


def parse_json(body: bytes) -> Any:
    """The value of a JSON text; 400 for anything that only Python would take for one."""
    try:
        return strict_json.loads(body.decode("utf-8"), max_depth=MAX_DEPTH)
    except (UnicodeDecodeError, JsonError) as error:
        raise BadRequest(
            f"We could not parse the JSON body of your request: {error}.", code="invalid_json"
        ) from None


def is_json(content_type: str) -> bool:
    kind = content_type.split(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body; 413 as soon as it is known to be longer than `max_bytes`."""
    too_large = TooLarge(
        f"The request body is larger than the limit of {max_bytes} bytes "
        "(TUNESMITH_MAX_BODY_BYTES).",
        code="request_too_large",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


class JsonRequest(Request):
    """A request whose JSON has been parsed already."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body
        self._value = value

    async def json(self) -> Any:
        return self._value


class JsonRoute(APIRoute):
    """A route of the API: where it takes a body, that is strict JSON of bounded size."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        if self.body_field is None:
            return handler

        async def strict(request: Request) -> Response:
            kind = request.headers.get("content-type", "application/json")
            if not is_json(kind):
                raise BadRequest(
                    f"Send the body as JSON with 'Content-Type: application/json', not '{kind}'.",
                    code="invalid_content_type",
                )
            body = await read_body(request, request.app.state.settings.max_body_bytes)
            return await handler(JsonRequest(request, body, parse_json(body)))

        return strict
