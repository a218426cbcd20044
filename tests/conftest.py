"""What tests of several folders share: one live server per run, started when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server
from tunesmith.ids import SystemClock
from tunesmith.store.db import open_database
from tunesmith.store.repo import bases

# The public names that tutorials use, standing for the embedded base.
ALIASES = ("gpt-3.5-turbo", "gpt-4o-mini", "gpt-4o-mini-2024-07-18")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`tunesmith serve` as a process of its own, with the embedded base under public names too."""
    data = tmp_path_factory.mktemp("server") / "data"
    with background_server(data) as running:
        db = open_database(running.data)
        with db.write() as conn:
            for name in ALIASES:
                bases.set_alias(conn, name, EMBEDDED_NAME, int(SystemClock().now()))
        db.close()
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key=server.api_key)
