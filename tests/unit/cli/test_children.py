from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest

from tunesmith.cli import children
from tunesmith.cli.children import Child, ending, listen, urgent_message


def line(level: str, message: str) -> bytes:
    return json.dumps({"level": level, "message": message}).encode() + b"\n"


def test_only_what_is_urgent_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = line("info", "calm") + b"no json\n[1]\n" + line("warning", "look here")
    listen(io.BytesIO(said), tmp_path / "api.log", "api")
    assert (tmp_path / "api.log").read_bytes() == said
    assert capsys.readouterr().err == "tunesmith: api: look here\n"


def test_a_full_disk_costs_log_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = io.BytesIO(line("info", "calm") * 3 + line("error", "no space"))
    listen(pipe, Path("/dev/full"), "api")
    assert pipe.read() == b""
    assert capsys.readouterr().err == "tunesmith: api: no space\n"


@pytest.mark.parametrize("level", ["warning", "error", "critical"])
def test_urgent_levels(level: str) -> None:
    assert urgent_message(line(level, "x")) == "x"
    assert urgent_message(line("debug", "x")) is None


def test_a_log_that_is_full_makes_room_and_loses_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "MAX_LOG_BYTES", 100)
    log = tmp_path / "api.log"
    listen(io.BytesIO(b"".join(b"%03d%s\n" % (n, b"x" * 46) for n in range(5))), log, "api")
    kept = (tmp_path / "api.old.log").read_bytes() + log.read_bytes()
    assert [int(entry[:3]) for entry in kept.splitlines()] == list(range(5))


def test_endings_in_words() -> None:
    assert ending(3) == "ended with status 3"
    assert ending(-9) == "was killed by SIGKILL"


def test_a_process_that_keeps_dying_is_started_again_ever_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(children, "LONGEST_PAUSE_S", 0.04)
    (tmp_path / "dies.py").write_text("raise SystemExit(7)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    log = tmp_path / "worker.log"
    child = Child("worker", "dies", log, environment, first_pause_s=0.01)
    child.start()
    told: list[str] = []
    give_up = time.monotonic() + 60
    while len(told) < 4 and time.monotonic() < give_up:
        child.revive()
        told += capsys.readouterr().err.splitlines()
        time.sleep(0.005)
    child.kill()
    assert all("worker ended with status 7" in each for each in told)
    pauses = [each.split("again in ")[1].split()[0] for each in told]
    assert pauses == ["0.01", "0.02", "0.04", "0.04"]
