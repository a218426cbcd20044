"""The command as a process: quick to help, free of torch, and never a traceback."""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run, problem

HELP = (
    (),
    *((command,) for command in ("serve", "worker", "tune", "chat", "doctor", "demo")),
    *(("base", verb) for verb in ("add", "list", "remove", "alias", "unalias")),
    *(("keys", verb) for verb in ("create", "list", "revoke")),
    *(("jobs", verb) for verb in ("list", "show", "cancel", "pause", "resume")),
    *(
        ("data", verb)
        for verb in ("check", "fix", "convert", "split", "stats", "show", "sample", "estimate")
    ),
)
# What a page of help cannot do without. Counted in CPU time and against it, so that neither a slow
# or busy machine nor a heavier release of a library fails the test; torch alone is 9 times as much.
NEEDED = "import typer, pydantic, rich.markdown, rich.traceback"
HELP_LIMIT = 4  # measured: 1.4 to 2.2


def tunesmith(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesmith.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.mark.parametrize("command", [(), ("serve",)])
def test_help_is_quick(command: tuple[str, ...]) -> None:
    spent_s, needed_s = [], []
    for _ in range(3):
        before_s = cpu_seconds_of_children()
        result = tunesmith(*command, "--help")
        spent_s.append(cpu_seconds_of_children() - before_s)
        assert result.returncode == 0 and "Usage" in result.stdout
        before_s = cpu_seconds_of_children()
        subprocess.run([sys.executable, "-c", NEEDED], check=True, timeout=60)
        needed_s.append(cpu_seconds_of_children() - before_s)
    assert min(spent_s) < HELP_LIMIT * min(needed_s)


def cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_nothing_heavy_is_imported_for_help() -> None:
    heavy = ("torch", "openai", "sqlalchemy", "fastapi", "pydantic", "httpx", "tokenizers")
    code = f"import sys, tunesmith.cli.app; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...], run: Run) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0 and "Usage" in result.output


def test_the_version() -> None:
    assert tunesmith("--version").stdout.startswith("tunesmith ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tune", "nothing.jsonl", "--model", "m"), "no such file"),
        (("jobs", "list"), "No API key"),
        (("jobs", "list", "--api-key", "k", "--base-url", "http://127.0.0.1:9/v1"), "No answer"),
        (("jobs", "list", "--api-key", "k", "--base-url", "localhost"), "is no URL"),
        (("keys", "list", "--data", "nowhere"), "is no data directory"),
        (("base", "add", "./nowhere"), "is no directory"),
        (("serve", "--data", "f/x"), "Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_are_one_line_with_the_next_step(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    (tmp_path / "f").touch()
    result = tunesmith(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("tunesmith: ") and says in lines[0]


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "tunesmith.toml").write_text('train_slots = "many"\n')
    result = tunesmith("doctor", cwd=tmp_path)
    assert result.returncode == 1
    assert "TUNESMITH_TRAIN_SLOTS" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [("serve",), ("worker",), ("base", "add", ".")])
def test_without_torch_the_commands_that_need_it_say_so(
    command: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'tunesmith[torch]'" in problem(run(*command))
