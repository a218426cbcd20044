"""One phase of one job as a process: files in, files out, and an exit status for the log."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import AdapterError, BaseModelError, DataError, JobError
from tunesmith.group.fork import run_forked
from tunesmith.group.place import Place, assigned
from tunesmith.ids import SystemClock
from tunesmith.jobdir.files import write_record
from tunesmith.jobdir.layout import EVENTS_FILE, PROCESS_FILE, RESULT_FILE, VALIDATION_FILE
from tunesmith.jobdir.outcome import Failure, Result
from tunesmith.jobdir.process import Phase, Process, start_ticks
from tunesmith.jobdir.records import from_json, to_json
from tunesmith.jobdir.spec import Spec, read_spec
from tunesmith.trainer.validate import validate

if TYPE_CHECKING:
    from tunesmith.train.job import Job

# Exit statuses. A user's error is a result, hence 0; a crash is Python's 1.
DONE = 0
FENCED = 3
# Another process of the job ended first, and said nothing that retrying would not change.
ABANDONED = 4

NO_ROOM = Failure(
    "out_of_memory",
    "Memory does not hold the base model and its adapter. Use a smaller base model or a machine "
    "with more memory.",
)


def run(phase: Phase, job_dir: Path) -> int:
    """Runs the phase to its end and writes what it found; the exit status.

    Whatever is unexpected is raised: the launcher sees a process that ended without a result.
    """
    spec = read_spec(job_dir)
    place = assigned() or Place()
    if place.rank == 0:
        ticks = start_ticks(os.getpid())
        assert ticks is not None, "this process is alive"
        write_record(Process(os.getpid(), ticks, spec.fence, phase), job_dir / PROCESS_FILE)
    if phase == "validate":
        return run_validate(job_dir, spec)
    if place.size > 1:
        return run_train(job_dir, spec, place)
    return run_forked(spec.processes, partial(run_train, job_dir, spec))


def run_validate(job_dir: Path, spec: Spec) -> int:
    found = validate(spec, job_dir)
    if _is_overtaken(job_dir, spec):
        return FENCED
    write_record(found, job_dir / VALIDATION_FILE)
    return DONE


def run_train(job_dir: Path, spec: Spec, place: Place) -> int:
    """The part of one process; the first of them writes."""
    # Torch is imported here: validating does without.
    from tunesmith.group.watch import Fenced, Watch
    from tunesmith.group.world import ALONE, Abandoned, join
    from tunesmith.jobdir.checkpoints import Checkpoints
    from tunesmith.jobdir.journal import Journal
    from tunesmith.model.memory import keep_freed_memory
    from tunesmith.train.job import Job

    keep_freed_memory()
    events = job_dir / EVENTS_FILE if place.rank == 0 else Path(os.devnull)
    world, status = ALONE, DONE
    try:
        world = join(place)
        with (
            Journal(events, SystemClock()) as journal,
            Watch(job_dir, spec.fence, world) as watch,
        ):
            checkpoints = Checkpoints(job_dir, spec.job_id, spec.fence)
            job = Job(job_dir, spec, journal, watch, checkpoints, world=world)
            watch.check_fence()
            if world.is_first:
                (job_dir / RESULT_FILE).unlink(missing_ok=True)
            result = _outcome(job)
            if world.is_first:
                journal.sync()
                watch.check_fence()
                write_record(result, job_dir / RESULT_FILE)
    except Fenced as overtaken:
        print(f"{overtaken} Nothing was written.", file=sys.stderr)
        status = FENCED
    except Abandoned as error:
        print(error.message, file=sys.stderr)
        status = ABANDONED
    world.leave()
    return status


def _outcome(job: Job) -> Result:
    """How training ended, also where what ended it happened to another process of the job."""
    from tunesmith.group.world import Abandoned
    from tunesmith.model.memory import is_out_of_memory
    from tunesmith.train.loop import train

    try:
        return train(job)
    except (DataError, JobError, BaseModelError, AdapterError) as error:
        found = Failure.of(error)
    except Abandoned:
        told = job.world.told()
        if told is None:
            raise
        found = from_json(Failure, told)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        found = NO_ROOM
    job.world.tell(to_json(found))
    return job.result("failed", found)


def _is_overtaken(job_dir: Path, spec: Spec) -> bool:
    return read_spec(job_dir).fence > spec.fence
