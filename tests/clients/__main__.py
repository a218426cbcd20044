"""Runs every supported client against one live server: `make clients`.

Each version of the official client is installed into a directory of its own under .clients/, each
library that speaks to the API into an environment of its own there (kept, so a second run is
quick), and driven by a script in a process of its own. Names choose some: `python -m tests.clients
dspy wandb`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.clients.rows import jsonl
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parent.parent / ".clients"
# A public name: three of the libraries take no other.
ALIAS = "gpt-4o-mini"
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
LIBRARIES = {
    "langchain": ["langchain-openai==1.7.3"],
    "litellm": ["litellm==1.106.2"],
    "dspy": ["dspy==3.4.1"],
    "llama-index": [
        "llama-index-finetuning==0.4.2",
        "llama-index-llms-openai==0.6.26",
        "mistralai<2",  # what it imports is gone from later ones
    ],
    "wandb": ["wandb==0.31.0", "openai", "pandas"],
    "lm-eval": ["lm-eval[api]==0.4.13"],
}
# LlamaIndex asks for ever, once a minute, for what is refused.
PATIENCE_S = 600.0
# LiteLLM, which DSPy uses too, would fetch its list of prices first.
OFFLINE = (("LITELLM_LOCAL_MODEL_COST_MAP", "True"),)
NODE_CLIENT = ("openai", "7.55.0", "walk.mjs")
PROMPTFOO = ("promptfoo", "0.121.20", "apps/promptfoo_walk.mjs")


@dataclass(frozen=True)
class Walk:
    name: str
    prepare: Callable[[], list[str]]
    """Installs what it needs; the command, but for its arguments."""
    model: str = EMBEDDED_NAME
    environment: tuple[tuple[str, str], ...] = ()


def main(chosen: list[str]) -> int:
    walks = [walk for walk in all_walks() if not chosen or walk.name.split()[0] in chosen]
    with tempfile.TemporaryDirectory() as scratch:
        training_file = Path(scratch) / "train.jsonl"
        training_file.write_bytes(jsonl(12))
        with background_server(Path(scratch) / "data") as server:
            alias(server)
            failed = [walk.name for walk in walks if not passes(walk, server, training_file)]
    print(f"failed: {', '.join(failed)}" if failed else f"all {len(walks)} clients passed")
    return 1 if failed else 0


def alias(server: Server) -> None:
    """What the guide tells everybody to do who has code with public names."""
    command = [sys.executable, "-m", "tunesmith.cli.app", "base", "alias", ALIAS, EMBEDDED_NAME]
    subprocess.run([*command, "--data", str(server.data)], check=True, stdout=subprocess.DEVNULL)


def passes(walk: Walk, server: Server, training_file: Path) -> bool:
    print(f"-- {walk.name}", flush=True)
    try:
        command = walk.prepare()
    except subprocess.CalledProcessError as error:
        print(f"{walk.name} could not be installed: {error}", flush=True)
        return False
    arguments = [server.base_url, server.api_key, walk.model, str(training_file)]
    environment = {**os.environ, **dict(walk.environment)}
    place = Path(command[1]).parent if command[0] == "node" else None
    try:
        ended = subprocess.run(
            [*command, *arguments], env=environment, cwd=place, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        print(f"{walk.name} did not end within {PATIENCE_S:.0f} s", flush=True)
        return False
    return ended.returncode == 0


def all_walks() -> list[Walk]:
    walks = [
        Walk(
            f"openai {version} {script}",
            lambda version=version, script=script: openai_command(version, script),
            environment=(("PYTHONPATH", str(CLIENTS / version)),),
        )
        for version, script in PYTHON_CLIENTS
    ]
    walks += [
        Walk(name, lambda name=name: library_command(name), ALIAS, OFFLINE) for name in LIBRARIES
    ]
    if shutil.which("npm") is None:
        print("npm is not installed: the Node client and promptfoo are left out", flush=True)
        return walks
    return [
        *walks,
        Walk("node", lambda: node_command(*NODE_CLIENT)),
        Walk("promptfoo", lambda: node_command(*PROMPTFOO), ALIAS),
    ]


def openai_command(version: str, script: str) -> list[str]:
    place = CLIENTS / version
    if not (place / "openai").exists():
        package = f"openai=={version}"
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(place), package]
        subprocess.run(command, check=True)
    return [sys.executable, str(HERE / script)]


def library_command(name: str) -> list[str]:
    python = CLIENTS / name / "bin" / "python"
    done = CLIENTS / name / ".installed"
    if not done.exists():
        venv.create(CLIENTS / name, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *LIBRARIES[name]], check=True)
        done.touch()
    return [str(python), str(HERE / "apps" / f"{name.replace('-', '_')}_walk.py")]


def node_command(package: str, version: str, script: str) -> list[str]:
    """The script is copied beside the package, where Node looks for it."""
    place = CLIENTS / f"{package}-{version}"
    if not (place / "node_modules" / package).exists():
        place.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--prefix", str(place), f"{package}@{version}"]
        subprocess.run(command, check=True)
    return ["node", shutil.copy(HERE / script, place)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
