"""The API process: `python -m tunesmith.api [--fd N]`.

Settings come from TUNESMITH_* variables and tunesmith.toml. With --fd it serves on a listening
socket that it was born with, so that a restart loses no client that is waiting to be accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import socket

import uvicorn

from tunesmith.api.app import assemble, open_services
from tunesmith.api.services import Services
from tunesmith.config import load_settings, secrets_of
from tunesmith.ops.telemetry import configure_logging
from tunesmith.serve.protocol import Draining

# For telling those whose answers had not ended in time.
LAST_WORDS_S = 2
LATE = "The server shut down before the answer's end. Try again soon."


class Server(uvicorn.Server):
    """Ends the streams of news at the start of a shutdown; other answers end by themselves, or are
    ended when their time is up."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.feed.close()
        asyncio.get_running_loop().call_later(
            self._services.settings.drain_s, self._services.engine.close, Draining(LATE)
        )
        await super().shutdown(sockets)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tunesmith.api")
    parser.add_argument("--fd", type=int, help="number of an inherited listening socket")
    fd = parser.parse_args().fd
    settings = load_settings()
    configure_logging("api", settings.log_level, secrets_of(settings))
    services = open_services(settings)
    config = uvicorn.Config(
        assemble(services),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        # Requests and answers pass through uvicorn's own bounds; ours are in the routes.
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(settings.drain_s) + LAST_WORDS_S,
    )
    sockets = None if fd is None else [socket.socket(fileno=fd)]
    Server(config, services).run(sockets=sockets)


if __name__ == "__main__":
    main()
