"""Runs every supported client version against one live server: `make clients`.

Each version is installed into a directory of its own under .clients/ (kept, so a second run is
quick) and driven by a script in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients.rows import jsonl
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parent.parent / ".clients"
PYTHON_CLIENTS = (
    ("0.28.1", "walk_0_28.py"),
    ("0.28.1", "tutorial_001.py"),
    ("0.28.1", "limits_0_28.py"),
    ("1.109.1", "walk.py"),
    ("2.54.0", "walk.py"),
    ("3.52.0", "walk.py"),
    ("1.109.1", "limits.py"),
    ("3.52.0", "limits.py"),
)
NODE_CLIENT = "7.55.0"


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        training_file = Path(scratch) / "train.jsonl"
        training_file.write_bytes(jsonl(12))
        with background_server(Path(scratch) / "data") as server:
            failed = [
                name
                for name, command, environment in walks(server, training_file)
                if subprocess.run(command, env={**os.environ, **environment}).returncode
            ]
    print(f"failed: {', '.join(failed)}" if failed else "every client passed")
    return 1 if failed else 0


def walks(server: Server, training_file: Path) -> list[tuple[str, list[str], dict[str, str]]]:
    arguments = [server.base_url, server.api_key, EMBEDDED_NAME, str(training_file)]
    runs = []
    for version, script in PYTHON_CLIENTS:
        place = install_python(version)
        command = [sys.executable, str(HERE / script), *arguments]
        runs.append((f"openai {version} {script}", command, {"PYTHONPATH": str(place)}))
    if shutil.which("npm") is None:
        print("npm is not installed: the Node client is left out", flush=True)
        return runs
    place = install_node(NODE_CLIENT)
    script = shutil.copy(HERE / "walk.mjs", place)
    return [*runs, (f"Node {NODE_CLIENT}", ["node", str(script), *arguments], {})]


def install_python(version: str) -> Path:
    place = CLIENTS / version
    if not (place / "openai").exists():
        package = f"openai=={version}"
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(place), package]
        subprocess.run(command, check=True)
    return place


def install_node(version: str) -> Path:
    place = CLIENTS / f"node-{version}"
    if not (place / "node_modules" / "openai").exists():
        place.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--prefix", str(place), f"openai@{version}"]
        subprocess.run(command, check=True)
    return place


if __name__ == "__main__":
    sys.exit(main())
