"""The engine process.

    python -m tunesmith.serve [--data DIR]

Listens on the data directory's engine socket, prints one JSON line once it does, and loads the
embedded base, so that a first answer is quick. SIGTERM drains: running answers get `drain_s`
seconds, new ones are refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import torch

from tunesmith.bases import embedded_directory
from tunesmith.config import Settings, load_settings
from tunesmith.errors import TunesmithError
from tunesmith.ops.telemetry import configure_logging
from tunesmith.serve.local import Limits
from tunesmith.serve.server import EngineServer

log = logging.getLogger("tunesmith.serve")


def main() -> None:
    started_s = time.monotonic()
    parser = argparse.ArgumentParser(prog="tunesmith.serve", description="The engine process.")
    parser.add_argument("--data", type=Path, help="data directory")
    arguments = parser.parse_args()
    settings = load_settings(data=arguments.data)
    configure_logging("engine", settings.log_level)
    torch.set_num_threads(settings.engine_threads or os.cpu_count() or 1)
    asyncio.run(serve(settings, started_s))
    sys.stdout.flush()
    # A loading thread may be deep in a large file; nothing is left to save, so leave at once.
    os._exit(0)


async def serve(settings: Settings, started_s: float) -> None:
    limits = Limits(
        device=settings.device,
        memory_bytes=settings.engine_memory_bytes,
        max_batch=settings.engine_max_batch,
        max_queue=settings.engine_max_queue,
    )
    server = EngineServer(settings.engine_socket, limits, drain_s=settings.drain_s)
    await server.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.drain)
    warming = asyncio.create_task(warm(server, embedded_directory()))
    socket = str(settings.engine_socket)
    elapsed_s = round(time.monotonic() - started_s, 3)
    log.info("ready", extra={"fields": {"socket": socket, "start_s": elapsed_s}})
    print(json.dumps({"ready": True, "socket": socket}), flush=True)
    await server.run()
    warming.cancel()


async def warm(server: EngineServer, base: Path) -> None:
    try:
        await server.preload(base)
    except TunesmithError as error:
        log.warning("the embedded base model could not be loaded: %s", error.message)


if __name__ == "__main__":
    main()
