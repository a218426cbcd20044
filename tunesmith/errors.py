"""Every error a user can meet, and how it reads on the wire.

TunesmithError
|-- ApiError                 an HTTP answer: {"error": {message, type, param, code}}
|   |-- BadRequest           400  (also conflicts of state: 409 would be retried by clients)
|   |-- Unauthorized         401
|   |-- Forbidden            403
|   |-- NotFound             404
|   |-- TooLarge             413
|   |-- TooMany              429  a limit: its type says which, its headers when to come again
|   `-- Unavailable          503  with retry-after
|-- DataError                a data file is wrong: fails the job, names the line
|-- JobError                 a job cannot go on by itself (out of memory, NaN loss)
|-- BaseModelError           a base model cannot be used; says what to do
|-- AdapterError             adapter files do not fit the base they are loaded onto
|-- ModerationError          the model that moderates cannot be asked, or gives no verdict
|-- ExportError              a model cannot be written in the form asked for, or came out different
`-- EngineError              the engine refused or broke off a request
    `-- EngineUnavailable    the engine is not there (starting, crashed, draining)
"""

from __future__ import annotations

from typing import Any


class TunesmithError(Exception):
    """The root; `str(error)` is the message for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ApiError(TunesmithError):
    status = 500
    type = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.type = type or self.type
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The published shape; all four keys are always there."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class BadRequest(ApiError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(ApiError):
    status = 401
    type = "invalid_request_error"


class Forbidden(ApiError):
    status = 403
    type = "invalid_request_error"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"


class TooLarge(ApiError):
    status = 413
    type = "invalid_request_error"


class TooMany(ApiError):
    status = 429
    type = "requests"


class Unavailable(ApiError):
    status = 503
    type = "server_error"


class DataError(TunesmithError):
    """A file that cannot be trained on. `line` counts from 1 and is also in the message."""

    def __init__(self, message: str, *, code: str, param: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.line = line


class JobError(TunesmithError):
    """Ends a job as failed; no retry would help."""

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class BaseModelError(TunesmithError):
    pass


class AdapterError(TunesmithError):
    pass


class ModerationError(TunesmithError):
    pass


class ExportError(TunesmithError):
    pass


class EngineError(TunesmithError):
    pass


class EngineUnavailable(EngineError):
    pass
