"""Every failure, as the one error body that clients understand.

A client builds its exception from `error.message`, `.param` and `.code`; a framework's own body
would reach the user as a bare status number. 409 and 422 never leave this server: clients retry
the one (the 0.28 client without end) and cannot read the other.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tunesmith.errors import (
    ApiError,
    BadRequest,
    EngineUnavailable,
    NotFound,
    TunesmithError,
    Unavailable,
)
from tunesmith.serve.protocol import InvalidRequest

log = logging.getLogger("tunesmith.api")

RETRY_AFTER_S = 1
# No space left, or no more of it for this user.
FULL = (errno.ENOSPC, errno.EDQUOT)
# The status that logs and metrics show where the client left before its answer.
GONE = 499

# pydantic's name of a mistake -> the public code. Anything else is an "invalid_value".
CODES = {
    "missing": "missing_required_parameter",
    "greater_than_equal": "below_min_value",
    "greater_than": "below_min_value",
    "less_than_equal": "above_max_value",
    "less_than": "above_max_value",
    "string_too_short": "string_below_min_length",
    "string_too_long": "string_above_max_length",
    "too_short": "empty_array",
    "too_long": "array_above_max_length",
}


def answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def unexpected() -> ApiError:
    """What a client hears of a fault of ours; the cause stands in the log only."""
    return ApiError(
        "The server had an error while processing your request. "
        "Please report the x-request-id of this answer to whoever runs the server."
    )


def invalid_url(method: str, path: str) -> NotFound:
    message = f"Invalid URL ({method} {path})"
    if path.startswith("/v1/fine-tunes"):
        message += ". This API is gone; use /v1/fine_tuning/jobs instead."
    return NotFound(message)


def translate(error: Exception) -> ApiError:
    """The HTTP answer to an error from anywhere below the API."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineUnavailable):
        return Unavailable(error.message, headers={"retry-after": str(RETRY_AFTER_S)})
    if isinstance(error, InvalidRequest):
        return BadRequest(error.message)
    if isinstance(error, OSError) and error.errno in FULL:
        log.error("%s", error)
        return Unavailable(
            "The server's disk is full, so nothing was stored. Send the request again once whoever "
            "runs the server has made room.",
            code="disk_full",
            headers={"retry-after": str(RETRY_AFTER_S)},
        )
    if isinstance(error, TunesmithError):
        # Says itself what is wrong and what to do, such as a base that does not load any more.
        log.error("%s: %s", type(error).__name__, error.message)
        return ApiError(error.message)
    return unexpected()


def path_of(loc: Sequence[str | int], body: Any, missing: bool = False) -> str | None:
    """`loc` as users write it ("messages[0].role"), without pydantic's names of union members."""
    path = ""
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        if isinstance(body, dict) and (part in body or (missing and last)):
            path += f".{part}" if path else str(part)
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            path += f"[{part}]"
            body = body[part]
    return path or None


def describe(details: Sequence[Any], body: Any) -> BadRequest:
    """The mistake that lies deepest in the request: of a union's complaints, the one meant."""

    def path(detail: Any) -> str | None:
        loc = detail["loc"]
        if loc and loc[0] == "body":
            return path_of(loc[1:], body, missing=detail["type"] == "missing")
        return str(loc[-1]) if loc else None

    detail = max(details, key=lambda each: len(path(each) or ""))
    param, kind = path(detail), detail["type"]
    if param is None:
        return BadRequest("The request body must be a JSON object.", code="invalid_type")
    if kind == "missing":
        message = f"Missing required parameter: '{param}'."
    elif kind.endswith("_type"):
        message = f"Invalid type for '{param}': {detail['msg']}."
        return BadRequest(message, code="invalid_type", param=param)
    else:
        message = f"Invalid value for '{param}': {detail['msg']}."
    return BadRequest(message, code=CODES.get(kind, "invalid_value"), param=param)


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    return answer(translate(error))


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(describe(error.errors(), error.body))


async def _http(request: Request, error: Exception) -> JSONResponse:
    """The framework's own refusals: unknown path, wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        return answer(invalid_url(request.method, request.url.path))
    refusal = BadRequest(str(error.detail))
    refusal.status = error.status_code if error.status_code < 500 else 500
    return answer(refusal)


async def _gone(request: Request, error: Exception) -> Response:
    """For a client that has hung up; nobody reads it."""
    return Response(status_code=GONE)


async def _os_error(request: Request, error: Exception) -> JSONResponse:
    """A full disk has words for the client; any other failure of the system is unexpected."""
    assert isinstance(error, OSError)
    if error.errno not in FULL:
        raise error
    return answer(translate(error))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return answer(unexpected())


def install(app: FastAPI) -> None:
    """Give every error its body. The traceback of an unexpected one is logged by the gate."""
    app.add_exception_handler(TunesmithError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(Exception, _unexpected)
