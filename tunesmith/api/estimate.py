"""/v1/tunesmith/jobs/estimate: what a job would take, before it is created."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastapi import APIRouter

from tunesmith.api import data, progress
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.bases import BaseInfo
from tunesmith.data.counts import Counts, Request
from tunesmith.data.estimate import METHODS, learning_rate, num_steps, resolve
from tunesmith.jobs import commands, rate
from tunesmith.jobs.rate import Rate, Rehearsal
from tunesmith.jobs.request import NewJob
from tunesmith.store.repo import bases, files, jobs
from tunesmith.store.repo.files import FileRow
from tunesmith.store.repo.jobs import JobRow
from tunesmith.wire.estimate import EstimateJob, JobEstimate, Price

router = APIRouter(prefix="/v1/tunesmith/jobs", route_class=JsonRoute)

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The latest values by what they depend on; safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._values: OrderedDict[Any, Value] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._capacity:
                self._values.popitem(last=False)
        return value


# A form asks again with each change; what the file holds stays the same.
_counted: Kept[Counts] = Kept(64)
_measured: Kept[Rate | None] = Kept(16)


@router.post("/estimate")
def estimate_job(body: EstimateJob, svc: Svc, caller: CallerDep) -> JobEstimate:
    """Refuses what creating the job would refuse; `problem` says what its validation would."""
    asked = {name: value for name, value in vars(body).items() if name != "measure"}
    request = NewJob(**{**asked, "hyperparameters": body.hyperparameters or {}})
    draft = commands.draft_job(svc.db, svc.clock, svc.settings, caller, request)
    with svc.db.read() as conn:
        base = bases.get(conn, draft.base)
        file = files.get(conn, caller.project, draft.training_file)
        num_ahead = len(jobs.among(conn, progress.UNDER_WAY))
    assert base is not None and file is not None, "the draft was checked"
    path = svc.blobs.path(file.id)
    key = (file.id, base.fingerprint, draft.method)
    asking = Request(str(path), str(base.path), draft.method, base.context_length)
    counts = _counted.get(key, lambda: _count(asking, file))
    speed = _speed(svc, draft, base, path, counts, measure=body.measure)
    return shape(svc, draft, base, counts, speed, num_ahead)


def _count(asking: Request, file: FileRow) -> Counts:
    found = data.work(
        asking,
        file,
        file.num_bytes,
        "count of tokens of",
        "estimate",
        param="training_file",
        comfort="The job can be created all the same. ",
    )
    return Counts(**found)


def _speed(
    svc: Services, draft: JobRow, base: BaseInfo, path: Path, counts: Counts, *, measure: bool
) -> Rate | None:
    if counts.fault is not None or counts.num_tokens == 0:
        return None
    known = rate.past_rate(svc.settings.jobs_dir, base.path)
    if known is not None or not measure or draft.method != "supervised":
        return known
    rehearsal = Rehearsal(
        str(path),
        str(base.path),
        base.context_length,
        draft.method,
        draft.requested,
        svc.settings.device,
        svc.settings.train_threads,
        rate.BUDGET_S,
    )
    key = (base.fingerprint, draft.training_file, str(sorted(draft.requested.items())))
    return _measured.get(key, lambda: rate.rehearse_apart(rehearsal, data.TIMEOUT_S))


def shape(
    svc: Services,
    draft: JobRow,
    base: BaseInfo,
    counts: Counts,
    speed: Rate | None,
    num_ahead: int,
) -> JobEstimate:
    [method] = [each for each in METHODS if each == draft.method]
    hyper = resolve(draft.requested, counts.num_examples, method)
    trained = counts.num_tokens * hyper.n_epochs
    seconds = None if speed is None else trained / speed.tokens_per_s
    costs = rate.local_costs(svc.settings.prices, draft.base, trained, seconds)
    return JobEstimate(
        base=base.name,
        kind=counts.kind,
        num_examples=counts.num_examples,
        num_tokens=counts.num_tokens,
        num_supervised_tokens=counts.num_supervised,
        trained_tokens=trained,
        num_steps=num_steps(counts.num_examples, hyper.n_epochs, hyper.batch_size),
        hyperparameters={name: value for name, value in asdict(hyper).items() if value is not None},
        learning_rate=learning_rate(
            base.hidden_size, hyper.learning_rate_multiplier, method, hyper.finetuning_type
        ),
        longest=counts.longest,
        max_tokens=base.context_length,
        num_too_long=counts.num_too_long,
        seconds=seconds,
        tokens_per_s=None if speed is None else speed.tokens_per_s,
        rate_source=None if speed is None else speed.source,
        peak_bytes=None if speed is None else speed.peak_bytes,
        prices=[Price(usd=str(dollars), basis=basis) for basis, dollars in costs],
        num_ahead=num_ahead,
        code=counts.code,
        problem=_problem(counts),
    )


def _problem(counts: Counts) -> str | None:
    if counts.num_too_long:
        return (
            f"{counts.num_too_long:,} examples are longer than the base model's context; a job "
            "refuses them."
        )
    return counts.fault
