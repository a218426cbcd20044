"""The engine process.

    python -m tunesmith.serve [--data DIR]

Listens on the data directory's engine socket and prints one JSON line once it does. The local
engine loads the embedded base at once, so that a first answer is quick. SIGTERM drains: running
answers get `drain_s` seconds, new ones are refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvloop

from tunesmith.bases import embedded_directory
from tunesmith.config import Settings, load_settings
from tunesmith.errors import TunesmithError
from tunesmith.ops.telemetry import configure_logging
from tunesmith.serve.server import Deliver, Engine, EngineServer

log = logging.getLogger("tunesmith.serve")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tunesmith.serve", description="The engine process.")
    parser.add_argument("--data", type=Path, help="data directory")
    arguments = parser.parse_args()
    settings = load_settings(data=arguments.data)
    configure_logging("engine", settings.log_level)
    threading.excepthook = die
    uvloop.run(serve(settings))
    sys.stdout.flush()
    # A loading thread may be deep in a large file; nothing is left to save, so leave at once.
    os._exit(0)


async def serve(settings: Settings) -> None:
    engine_of = vllm_engine if settings.engine == "vllm" else local_engine
    server = EngineServer(
        settings.engine_socket, partial(engine_of, settings), drain_s=settings.drain_s
    )
    await server.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.drain)
    warming = asyncio.create_task(warm(server, settings))
    socket = str(settings.engine_socket)
    log.info("ready", extra={"fields": {"socket": socket}})
    print(json.dumps({"ready": True, "socket": socket}), flush=True)
    await server.run()
    warming.cancel()


def local_engine(settings: Settings, deliver: Deliver) -> Engine:
    from tunesmith.serve.local import Limits, LocalEngine

    limits = Limits(
        device=settings.device,
        memory_bytes=settings.engine_memory_bytes,
        max_batch=settings.engine_max_batch,
        max_queue=settings.engine_max_queue,
        num_threads=settings.engine_threads or len(os.sched_getaffinity(0)),
        int8=settings.engine_int8,
    )
    return LocalEngine(limits, deliver)


def vllm_engine(settings: Settings, deliver: Deliver) -> Engine:
    from tunesmith.serve.vllm.engine import VllmEngine
    from tunesmith.serve.vllm.servers import Options

    options = Options(
        run_dir=settings.engine_socket.parent,
        log_dir=settings.data_dir / "log",
        adapters_dir=settings.adapters_dir,
        urls=tuple(settings.vllm_url.split(",")) if settings.vllm_url else (),
        api_key=settings.vllm_api_key.get_secret_value() if settings.vllm_api_key else None,
        python=settings.vllm_python,
        arguments=settings.vllm_arguments,
        max_queue=settings.engine_max_queue,
    )
    return VllmEngine(options, deliver)


def die(failure: threading.ExceptHookArgs) -> None:
    """A thread of the engine has ended: better a fresh process than requests that wait forever."""
    info = (failure.exc_type, failure.exc_value, failure.exc_traceback)
    log.critical("the engine broke down", exc_info=cast(Any, info))
    os._exit(1)


async def warm(server: EngineServer, settings: Settings) -> None:
    if settings.engine != "local":
        return
    try:
        await server.preload(embedded_directory())
    except TunesmithError as error:
        log.warning("the embedded base model could not be loaded: %s", error.message)


if __name__ == "__main__":
    main()
