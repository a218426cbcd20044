"""The API process: `python -m tunesmith.api [--fd N]`.

Settings come from TUNESMITH_* variables and tunesmith.toml. With --fd it serves on a listening
socket that it was born with, so that a restart loses no client that is waiting to be accepted.
"""

from __future__ import annotations

import argparse
import math
import socket

import uvicorn

from tunesmith.api.app import assemble, open_services
from tunesmith.api.feed import Feed
from tunesmith.config import load_settings, secrets_of
from tunesmith.ops.telemetry import configure_logging


class Server(uvicorn.Server):
    """Ends the streams of news at the start of a shutdown; other answers end by themselves."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.close()
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
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )
    sockets = None if fd is None else [socket.socket(fileno=fd)]
    Server(config, services.feed).run(sockets=sockets)


if __name__ == "__main__":
    main()
