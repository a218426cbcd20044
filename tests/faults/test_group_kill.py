"""kill -9 of any process of a job that several train, at random instants: the bytes are equal."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.trainer_job import adapter_bytes, make_job, metrics_of, relaunched, result_of
from tests.trainer_kill import HYPER, SAVE_EVERY_S, warm_server
from tunesmith.jobdir.layout import EVENTS_FILE
from tunesmith.jobdir.process import stat_fields

NUM_PROCESSES = 3
NUM_KILLS = 12
# How long processes may take to notice that one of theirs is gone.
NOTICE_S = 20.0


def group_of(leader: int) -> list[int]:
    """The live processes of a process group, the leader first."""
    found = []
    for path in Path("/proc").iterdir():
        fields = stat_fields(int(path.name)) if path.name.isdigit() else None
        # After the state come the parent and the group; one just forked has not founded it yet.
        if fields and fields[0] not in "ZX" and leader in (int(path.name), int(fields[2])):
            found.append(int(path.name))
    return sorted(found, key=lambda pid: (pid != leader, pid))


def wait_for_the_end(leader: int) -> None:
    deadline = time.monotonic() + 120.0
    while group_of(leader):
        assert time.monotonic() < deadline, "processes of the job go on"
        time.sleep(0.01)


def num_events(job_dir: Path) -> int:
    path = job_dir / EVENTS_FILE
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_events(job_dir: Path, number: int, leader: int) -> None:
    """A job's own progress says how far it is, whatever else the machine does."""
    deadline = time.monotonic() + 120.0
    while num_events(job_dir) < number and group_of(leader):
        assert time.monotonic() < deadline, "the job stands still"
        time.sleep(0.01)


def test_kills_of_any_process_leave_no_trace(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def job(name: str) -> Path:
        return make_job(
            tmp_path / name,
            hyperparameters=HYPER,
            save_every_s=SAVE_EVERY_S,
            processes=NUM_PROCESSES,
        )

    with warm_server() as server:
        whole = job("whole")
        wait_for_the_end(server.launch("train", whole).pid)
        total = num_events(whole)
        assert result_of(whole).status == "succeeded"
        job_dir = job("killed")
        killed = []
        for _ in range(NUM_KILLS):
            leader = server.launch("train", job_dir).pid
            wait_for_events(job_dir, num_events(job_dir) + chance.randint(0, total // 4), leader)
            time.sleep(chance.uniform(0.0, 0.3))
            group = group_of(leader)
            if group:
                number = chance.randrange(len(group))
                killed.append(number)
                os.kill(group[number], signal.SIGKILL)
                before = time.monotonic()
                wait_for_the_end(leader)
                assert time.monotonic() - before < NOTICE_S
            relaunched(job_dir)
        print(f"killed {killed}")
        assert len(set(killed)) > 1, killed
        wait_for_the_end(server.launch("train", job_dir).pid)
    assert result_of(job_dir).status == "succeeded"
    assert adapter_bytes(job_dir) == adapter_bytes(whole)
    assert metrics_of(job_dir) == metrics_of(whole)
