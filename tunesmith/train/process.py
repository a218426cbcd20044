"""One phase of one job as a process: files in, files out, and an exit status for the log."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tunesmith.errors import AdapterError, BaseModelError, DataError, JobError, TunesmithError
from tunesmith.ids import SystemClock
from tunesmith.train import spec as files
from tunesmith.train.spec import Failure, Phase, Process, Spec
from tunesmith.train.validate import validate

# Exit statuses. A user's error is a result, hence 0; a crash is Python's 1.
DONE = 0
FENCED = 3

NO_ROOM = Failure(
    "out_of_memory",
    "Memory does not hold the base model and its adapter. Use a smaller base model or a machine "
    "with more memory.",
)


def run(phase: Phase, job_dir: Path) -> int:
    """Runs the phase to its end and writes what it found; the exit status.

    Whatever is unexpected is raised: the launcher sees a process that ended without a result.
    """
    spec = files.read_spec(job_dir)
    ticks = files.start_ticks(os.getpid())
    assert ticks is not None, "this process is alive"
    files.write(Process(os.getpid(), ticks, spec.fence, phase), job_dir / files.PROCESS_FILE)
    return run_validate(job_dir, spec) if phase == "validate" else run_train(job_dir, spec)


def run_validate(job_dir: Path, spec: Spec) -> int:
    found = validate(spec)
    if _is_overtaken(job_dir, spec):
        return FENCED
    files.write(found, job_dir / files.VALIDATION_FILE)
    return DONE


def run_train(job_dir: Path, spec: Spec) -> int:
    # Torch is imported here: validating does without.
    from tunesmith.train.checkpoint import Checkpoints
    from tunesmith.train.job import Job
    from tunesmith.train.journal import Journal
    from tunesmith.train.loop import train
    from tunesmith.train.memory import is_out_of_memory, keep_freed_memory
    from tunesmith.train.watch import Fenced, Watch

    keep_freed_memory()
    with (
        Journal(job_dir / files.EVENTS_FILE, SystemClock()) as journal,
        Watch(job_dir, spec.fence) as watch,
    ):
        job = Job(job_dir, spec, journal, watch, Checkpoints(job_dir, spec.job_id, spec.fence))
        try:
            watch.check_fence()
            (job_dir / files.RESULT_FILE).unlink(missing_ok=True)
            try:
                result = train(job)
            except (DataError, JobError, BaseModelError, AdapterError) as error:
                result = job.result("failed", failure(error))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                result = job.result("failed", NO_ROOM)
            journal.sync()
            watch.check_fence()
        except Fenced as overtaken:
            print(f"{overtaken} Nothing was written.", file=sys.stderr)
            return FENCED
        files.write(result, job_dir / files.RESULT_FILE)
    return DONE


def failure(error: TunesmithError) -> Failure:
    """How an error that no retry would change reads in the job object."""
    if isinstance(error, DataError):
        return Failure(error.code, error.message, error.param, error.line)
    if isinstance(error, JobError):
        return Failure(error.code, error.message, error.param)
    code = "invalid_base_model" if isinstance(error, BaseModelError) else "invalid_adapter"
    return Failure(code, error.message, "model")


def _is_overtaken(job_dir: Path, spec: Spec) -> bool:
    return files.read_spec(job_dir).fence > spec.fence
