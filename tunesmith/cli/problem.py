"""Turns an error into the one line that a user reads: what is wrong, and what to do next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tunesmith.errors import TunesmithError

if TYPE_CHECKING:
    import openai


class CommandFailed(TunesmithError):
    """A command cannot do what was asked; the message says why and what to do."""


def explain(error: Exception) -> str | None:
    """The line for an error that a user can meet; None for one that is a fault of ours."""
    if isinstance(error, TunesmithError):
        return one_line(error.message)
    remote = remote_problem(error)
    if remote is not None:
        return remote
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return one_line(f"{where}{error.strerror}. Check the path, its permissions and the disk.")
    return database_problem(error)


def remote_problem(error: Exception) -> str | None:
    openai = sys.modules.get("openai")  # not imported yet: the error cannot be one of its own
    if openai is None:
        return None
    if isinstance(error, openai.APIConnectionError):
        url = error.request.url
        return (
            f"No answer from {url.scheme}://{url.netloc.decode()}. "
            "Is the server running (`tunesmith serve`), and is --base-url right?"
        )
    if isinstance(error, openai.APIStatusError):
        return status_problem(error)
    if isinstance(error, openai.OpenAIError):
        return one_line(str(error))
    return None


def status_problem(error: openai.APIStatusError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    text = str(body.get("message") or error.message)
    if error.status_code == 401:
        text += " Give a key with --api-key or TUNESMITH_API_KEY (`tunesmith keys create`)."
    elif error.status_code == 404 and "message" not in body:
        text += " Does --base-url end in /v1?"
    elif error.status_code >= 500:
        text += " The server's log tells more; try again in a moment."
    return one_line(text)


def database_problem(error: Exception) -> str | None:
    if type(error).__module__.startswith("sqlalchemy"):
        cause = getattr(error, "orig", None) or error
        return one_line(f"The database: {cause}. `tunesmith doctor` tells what is wrong.")
    return None


def one_line(text: str) -> str:
    return " ".join(text.split())
