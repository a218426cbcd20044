"""Schemathesis over the server's own OpenAPI document: `make schemathesis`.

Requests of all kinds, valid and not, one after another and built on each other's answers, for half
an hour or for MINUTES. What counts is that no answer is a 5xx. Schemathesis lives in a directory of
its own under .clients/, since only this needs it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from tests.clients.rows import jsonl
from tunesmith.api.app import ROUTERS
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server

PLACE = Path(__file__).resolve().parents[2] / ".clients" / "schemathesis"
VERSION = "4.32.5"
# These may lock the run out: they end the project or the key that it goes by. They come last.
LAST = ("/archive$", r"/api_keys/\{", r"/users/\{")


def document() -> dict[str, Any]:
    """What FastAPI makes of the routes; the names that requests may well use are filled in."""
    app = FastAPI(title="tunesmith", version="1")
    for router in ROUTERS:
        app.include_router(router)
    found: dict[str, Any] = app.openapi()
    for schema in found["components"]["schemas"].values():
        model = schema.get("properties", {}).get("model")
        if model and model.get("type") == "string":
            model["enum"] = [EMBEDDED_NAME, "gpt-4o-mini", "no-such-model"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="make schemathesis")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    tool = installed()
    with tempfile.TemporaryDirectory() as scratch:
        schema = Path(scratch) / "openapi.json"
        schema.write_text(json.dumps(document()))
        with background_server(Path(scratch) / "data") as server:
            prepare(server)
            seconds = given.minutes * 60
            status = 0
            for share, kind in ((0.9, "exclude"), (0.1, "include")):
                ran = [*command(tool, server, schema, given.seed), *only(kind)]
                ran += ["--max-time", str(max(1, int(share * seconds)))]
                status |= subprocess.run(ran, cwd=scratch).returncode
            alive = server.process.poll() is None
        if status or not alive:
            log = (Path(scratch) / "data" / "log" / "serve.log").read_text(errors="replace")
            print("\n".join(line for line in log.splitlines() if "Traceback" in line)[-20000:])
    if not alive:
        print("the server died")
    return status or int(not alive)


def prepare(server: Server) -> None:
    """A file and a job, so that lists are not empty."""
    from openai import OpenAI

    client = OpenAI(api_key=server.api_key, base_url=server.base_url)
    file = client.files.create(file=("train.jsonl", jsonl(12)), purpose="fine-tune")
    client.fine_tuning.jobs.create(model=EMBEDDED_NAME, training_file=file.id)


def only(kind: str) -> list[str]:
    """Options that exclude or include the operations that come last."""
    return [each for path in LAST for each in (f"--{kind}-path-regex", path)]


def command(tool: Path, server: Server, schema: Path, seed: int) -> list[str]:
    return [
        str(tool),
        *("run", str(schema), "--url", server.root),
        *("--header", f"Authorization: Bearer {server.api_key}"),
        *("--checks", "not_a_server_error", "--continue-on-failure"),
        *("--seed", str(seed)),
        *("--request-timeout", "60", "--suppress-health-check", "all", "--warnings", "off"),
    ]


def installed() -> Path:
    tool = PLACE / "bin" / "schemathesis"
    if not tool.exists():
        venv.create(PLACE, with_pip=True)
        package = f"schemathesis=={VERSION}"
        install = [str(PLACE / "bin" / "python"), "-m", "pip", "install", "-q", package]
        subprocess.run(install, check=True)
    return tool


if __name__ == "__main__":
    sys.exit(main())
