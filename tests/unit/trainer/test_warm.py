"""The warm server: forks that are processes of their own, with nothing inherited that matters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer_job import make_job, result_of
from tests.trainer_kill import WarmServer, wait, warm_server
from tunesmith.jobdir.files import read_record
from tunesmith.jobdir.layout import (
    EVENTS_FILE,
    LOG_FILE,
    PLAN_FILE,
    PROCESS_FILE,
    RESULT_FILE,
    VALIDATION_FILE,
)
from tunesmith.jobdir.outcome import Validation
from tunesmith.jobdir.process import Process
from tunesmith.trainer.warm import NICE

LONG = {"n_epochs": 50, "batch_size": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[WarmServer]:
    with warm_server() as server:
        yield server


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_has_one_thread_and_so_can_be_forked(server: WarmServer) -> None:
    assert status_of(server.pid)["Threads"] == "1"


def test_it_runs_both_phases(server: WarmServer, tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    server.run("validate", job_dir)
    validation = read_record(Validation, job_dir / VALIDATION_FILE)
    assert validation is not None
    assert validation.ok
    server.run("train", job_dir)
    assert result_of(job_dir).status == "succeeded"
    assert (job_dir / LOG_FILE).read_text() == ""


def test_it_computes_with_several_threads_after_the_fork(
    server: WarmServer, tmp_path: Path
) -> None:
    job_dir = make_job(tmp_path / "job")
    server.run("train", job_dir)
    plan = (job_dir / PLAN_FILE).read_text().replace('"threads": 1', '"threads": 2')
    two = make_job(tmp_path / "two")
    (two / PLAN_FILE).write_text(plan)
    server.run("train", two)
    assert result_of(two).status == "succeeded"


def test_a_child_leads_its_own_session_and_says_who_it_is(
    server: WarmServer, tmp_path: Path
) -> None:
    job_dir = make_job(tmp_path / "job", hyperparameters=LONG)
    process = server.launch("train", job_dir)
    path = job_dir / PROCESS_FILE
    while not path.exists():
        time.sleep(0.002)
    assert read_record(Process, path) == process
    assert os.getsid(process.pid) == process.pid
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "500"
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= NICE
    group = Path(f"/proc/{process.pid}/autogroup")
    if group.exists() and (told := group.read_text().split()):  # empty where they are turned off
        assert told[-1] == str(NICE)
    status = status_of(process.pid)
    term = 1 << (signal.SIGTERM - 1)
    child = 1 << (signal.SIGCHLD - 1)
    assert not int(status["SigBlk"], 16) & child
    assert not int(status["SigIgn"], 16) & (term | child)
    opened = {Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in (0, 1, 2)}
    assert opened == {Path(os.devnull), job_dir / LOG_FILE}
    os.kill(process.pid, signal.SIGKILL)
    wait(process)


def test_sigterm_saves_and_ends_as_interrupted(server: WarmServer, tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job", hyperparameters=LONG)
    process = server.launch("train", job_dir)
    events = job_dir / EVENTS_FILE
    while not events.exists() or b"step:3" not in events.read_bytes():
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGTERM)
    wait(process)
    result = result_of(job_dir)
    assert result.status == "interrupted"
    assert result.checkpoints == []
    assert (job_dir / "checkpoints" / f"step-{result.step:08d}").is_dir()


def test_dead_children_are_reaped(server: WarmServer, tmp_path: Path) -> None:
    process = server.launch("validate", make_job(tmp_path / "job"))
    deadline = time.monotonic() + 10
    while Path(f"/proc/{process.pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_answers_nonsense_with_an_error_and_goes_on(server: WarmServer, tmp_path: Path) -> None:
    for line in (b"", b"{", b"[]", b'{"phase": "train"}', b'{"phase": "x", "job_dir": "/tmp"}'):
        assert "error" in server.ask(line)
    gone = b'{"phase": "train", "job_dir": "/nowhere/at/all"}'
    assert "error" in server.ask(gone)
    server.run("validate", make_job(tmp_path / "job"))


def test_a_crash_is_in_the_log_and_leaves_no_result(server: WarmServer, tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    (job_dir / PLAN_FILE).mkdir()
    server.run("train", job_dir)
    assert not (job_dir / RESULT_FILE).exists()
    assert "IsADirectoryError" in (job_dir / LOG_FILE).read_text()


def test_children_outlive_the_server(tmp_path: Path) -> None:
    with warm_server() as server:
        job_dir = make_job(tmp_path / "job")
        process = server.launch("train", job_dir)
        assert server.close() == 0
    wait(process)
    assert result_of(job_dir).status == "succeeded"


def test_by_hand_it_is_one_command(tmp_path: Path) -> None:
    job_dir = make_job(tmp_path / "job")
    command = [sys.executable, "-m", "tunesmith.trainer"]
    assert subprocess.run([*command, "train", job_dir], check=False).returncode == 0
    assert result_of(job_dir).status == "succeeded"
    wrong = subprocess.run([*command, "run"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "usage" in wrong.stderr
    nowhere = [*command, "validate", tmp_path]
    missing = subprocess.run(nowhere, capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert "spec.json" in missing.stderr


def test_neither_transformers_nor_the_compiler_is_imported() -> None:
    code = (
        "import sys; from tunesmith.trainer import warm, process; "
        "from tunesmith.train import loop; "
        "from tunesmith.train.optimizer import AdamW; import torch; "
        "AdamW([torch.zeros(3)]).update(0.1); "
        "print([m for m in ('transformers', 'torch._dynamo', 'sympy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    torch_free = "import sys; from tunesmith.trainer import validate; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", torch_free], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"
