"""Options that several commands share, and how they become settings or a client."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.problem import CommandFailed

if TYPE_CHECKING:
    from openai import OpenAI

    from tunesmith.config import Settings
    from tunesmith.store.db import Database

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="TUNESMITH_DATA",
        help="Data directory (default ./tunesmith-data).",
        show_default=False,
    ),
]
BaseUrl = Annotated[
    str,
    typer.Option(
        "--base-url",
        envvar=["TUNESMITH_BASE_URL", "OPENAI_BASE_URL"],
        help="Any OpenAI-compatible endpoint.",
    ),
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar=["TUNESMITH_API_KEY", "OPENAI_API_KEY"],
        help="Key for the endpoint.",
        show_default=False,
    ),
]


def settings(**overrides: Any) -> Settings:
    """Settings with the given options on top; a wrong value ends the command in one line."""
    from pydantic import ValidationError

    from tunesmith.config import load_settings

    try:
        return load_settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if not name:  # several settings that do not go together
            raise CommandFailed(first["msg"].removeprefix("Value error, ")) from None
        raise CommandFailed(
            f"Setting {name} (TUNESMITH_{name.upper()}): {first['msg']}. See docs/settings.md."
        ) from None


def require_torch() -> None:
    """For commands that train or serve: the rest of the package installs without torch."""
    if importlib.util.find_spec("torch") is None:
        raise CommandFailed("This needs torch. Install it: pip install 'tunesmith[torch]'")


def existing_settings(data: Path | None) -> Settings:
    """Settings of a data directory that is there already."""
    found = settings(data=data)
    if not found.database_path.exists():
        raise CommandFailed(
            f"{found.data_dir} is no data directory. Name it with --data, "
            "or make one with `tunesmith serve --data DIR`."
        )
    return found


def existing_store(data: Path | None) -> tuple[Settings, Database]:
    """Settings and database of a data directory that is there already."""
    found = existing_settings(data)
    from tunesmith.store.db import open_database

    return found, open_database(found.data_dir)


def connect(base_url: str, api_key: str) -> OpenAI:
    """The official client for an endpoint."""
    if not api_key:
        raise CommandFailed(
            "No API key. Give one with --api-key or TUNESMITH_API_KEY "
            "(`tunesmith serve` prints it on its first start; `tunesmith keys create` makes more)."
        )
    if not base_url.startswith(("http://", "https://")):
        raise CommandFailed(f"--base-url {base_url} is no URL; it looks like {DEFAULT_BASE_URL}.")
    from openai import OpenAI

    return OpenAI(base_url=base_url, api_key=api_key)
