"""What stops a trainer: control file, signals, a higher fence."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.trainer_job import make_job, relaunched
from tunesmith.group.watch import Fenced, Watch
from tunesmith.jobdir.control import write_control


@pytest.fixture
def job_dir(tmp_path: Path) -> Path:
    return make_job(tmp_path / "job")


def test_control_words_become_requests(job_dir: Path) -> None:
    with Watch(job_dir, fence=1) as watch:
        assert watch.request() is None
        write_control(job_dir, "pause")
        assert watch.request() == "pause"
        write_control(job_dir, "cancel")
        assert watch.request() == "cancel"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_but_a_control_word_goes_first(
    job_dir: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    with Watch(job_dir, fence=1) as watch:
        os.kill(os.getpid(), number)
        assert watch.request() == "interrupt"
        write_control(job_dir, "cancel")
        assert watch.request() == "cancel"
    assert signal.getsignal(number) is before


def test_a_successor_is_noticed(job_dir: Path) -> None:
    with Watch(job_dir, fence=1) as watch:
        assert watch.request() is None
        relaunched(job_dir, fence=1)
        assert watch.request() is None
        relaunched(job_dir)
        with pytest.raises(Fenced):
            watch.request()
        with pytest.raises(Fenced):
            watch.check_fence()
