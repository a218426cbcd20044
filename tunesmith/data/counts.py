"""What a job would count in a file, or why it would refuse it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.conversation import RenderError
from tunesmith.data.forecast import forecast
from tunesmith.data.render import Renderer
from tunesmith.errors import DataError


@dataclass(frozen=True)
class Request:
    path: str
    base: str
    """The base model's directory."""
    method: str
    max_tokens: int


@dataclass(frozen=True)
class Counts:
    """Of one epoch; all 0 where a row is wrong."""

    kind: str
    num_examples: int = 0
    num_tokens: int = 0
    num_supervised: int = 0
    longest: int = 0
    num_too_long: int = 0
    fault: str | None = None
    """Why a job would refuse the file."""
    code: str | None = None


def count(request: Request) -> Counts:
    base = Path(request.base)
    try:
        found = forecast(
            Path(request.path), Renderer.load(base), request.max_tokens, {}, method=request.method
        )
    except DataError as error:
        # Told before there is a job: none has failed.
        _, _, fault = error.message.rpartition("The job failed due to ")
        return Counts("unknown", fault=fault[:1].upper() + fault[1:], code=error.code)
    except RenderError as error:
        return Counts("unknown", fault=str(error), code="invalid_training_file")
    return Counts(
        found.kind,
        found.num_examples,
        found.num_tokens,
        found.num_supervised,
        found.longest,
        found.num_too_long,
    )


def make(request: Request) -> dict[str, Any]:
    """`Counts`, as JSON has them."""
    return asdict(count(request))
