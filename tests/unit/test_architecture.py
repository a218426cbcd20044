"""The arrows of ARCHITECTURE.md, read from the imports and proven by importing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tunesmith"
PURE = ("data", "model", "jobdir", "group", "train", "trainer")
TORCH_USERS = ("model", "group", "train", "trainer", "serve")
# Read by processes without torch, though they lie where torch is used.
TORCH_FREE = (
    "tunesmith.bases",
    "tunesmith.model.adapter_files",
    "tunesmith.model.families",
    "tunesmith.model.shapes",
    "tunesmith.serve.client",
    "tunesmith.serve.protocol",
    "tunesmith.serve.server",
    "tunesmith.serve.vllm.engine",
    "tunesmith.jobdir.checkpoints",
    "tunesmith.group.fork",
    "tunesmith.trainer.validate",
    "tunesmith.api.app",
    "tunesmith.cli.app",
    "tunesmith.cli.serve",
    "tunesmith.data.check",
    "tunesmith.data.estimate",
    "tunesmith.jobs.supervisor",
    "tunesmith.jobs.audit",
    "tunesmith.ops.telemetry",
    "tunesmith.store.db",
)
MAX_LINES = 500


def sources(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere, those for type checking too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(paths: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imported(path)
        if any(name == root or name.startswith(root + ".") for root in forbidden)
    ]


def named(*names: str) -> list[str]:
    return [f"tunesmith.{name}" for name in names]


def test_training_knows_nothing_of_the_service() -> None:
    service = named("store", "jobs", "api", "serve", "cli", "wire")
    assert offenders([path for name in PURE for path in sources(name)], *service) == []


@pytest.mark.parametrize("number", range(len(PURE)))
def test_each_part_of_training_knows_those_before_it(number: int) -> None:
    assert offenders(sources(PURE[number]), *named(*PURE[number + 1 :])) == []


def test_the_service_meets_a_trainer_in_the_jobs_directory_alone() -> None:
    """But for the rehearsal of an estimate, in a process of its own."""
    service = [path for name in ("store", "jobs", "api", "wire") for path in sources(name)]
    others = [path for path in service if path != PACKAGE / "jobs" / "rate.py"]
    assert offenders(others, *named("group", "train", "trainer")) == []


def test_the_store_is_below_jobs_and_api() -> None:
    assert offenders(sources("store"), *named("jobs", "api", "cli", "jobdir")) == []
    assert offenders(sources("jobs"), "tunesmith.api", "tunesmith.cli") == []
    assert offenders(sources("serve"), "tunesmith.store", "tunesmith.jobs", "tunesmith.api") == []
    assert offenders(sources("wire"), "tunesmith.store", "tunesmith.jobs", "tunesmith.api") == []


def test_torch_stays_where_it_is_needed() -> None:
    users = {path for name in TORCH_USERS for path in sources(name)}
    others = [path for path in sources() if path not in users]
    assert offenders(others, "torch", "transformers", "safetensors") == []


@pytest.mark.parametrize("module", TORCH_FREE)
def test_processes_without_torch_stay_without(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_only_the_repositories_write_queries() -> None:
    builders = {"select", "insert", "update", "delete"}
    for path in sources():
        if path.is_relative_to(PACKAGE / "store"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "sa" and node.attr in builders), path


def test_the_outside_is_reached_by_one_way_only() -> None:
    """The command line talks to endpoints that its user names; trackers use their own libraries."""
    ours = [path for path in sources() if path not in sources("cli")]
    allowed = {PACKAGE / "ops" / "outbound.py", PACKAGE / "ops" / "mail.py"}
    clients = ("httpcore", "httpx", "requests", "aiohttp", "urllib.request", "http.client")
    assert offenders([path for path in ours if path not in allowed], *clients, "aiosmtplib") == []
    trackers = ("wandb", "mlflow", "tensorboardX")
    outside = [path for path in ours if path not in sources("track")]
    assert offenders(outside, *trackers) == []
    assert offenders(sources("track"), "tunesmith.store", "tunesmith.jobs", "tunesmith.api") == []


def test_dangerous_calls_are_not_made() -> None:
    """Pickles run code when they are opened, and so do a model repository's own modules."""
    banned = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "yaml.load"}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in banned, path
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", path


def test_no_module_outgrows_its_story() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources()}
    assert [path for path, length in lengths.items() if length > MAX_LINES] == []
    assert all(path.read_bytes().isascii() for path in sources())
