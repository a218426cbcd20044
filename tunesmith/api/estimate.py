"""/v1/tunesmith/jobs/estimate: what a job would take, before it is created."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from fastapi import APIRouter

from tunesmith.access import Caller
from tunesmith.api import data
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.bases import BaseInfo
from tunesmith.data.counts import Counts, Request
from tunesmith.data.estimate import (
    METHODS,
    Hyperparameters,
    Method,
    learning_rate,
    num_steps,
    resolve,
)
from tunesmith.errors import ApiError
from tunesmith.jobs import commands, rate
from tunesmith.jobs.rate import Rate, Rehearsal
from tunesmith.jobs.request import NewJob
from tunesmith.jobs.states import UNDER_WAY
from tunesmith.store.repo import bases, files, jobs
from tunesmith.store.repo.jobs import JobRow
from tunesmith.wire.estimate import EstimateJob, JobEstimate, Price

router = APIRouter(prefix="/v1/tunesmith/jobs", route_class=JsonRoute)

# Nobody waits longer for a job's creation; what is not counted by then is by its validation.
CREATE_TIMEOUT_S = 10.0

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
    base, counts = _counts(svc, draft)
    with svc.db.read() as conn:
        num_ahead = len(jobs.among(conn, UNDER_WAY))
    speed = _speed(svc, draft, base, counts, measure=body.measure)
    return shape(svc, draft, base, counts, speed, num_ahead)


def tokens_of_budget(svc: Services, caller: Caller, request: NewJob) -> int | None:
    """What a job would train, where a budget needs to know; None also where that takes too long
    or finds a fault, which both the job's validation will see."""
    if not svc.meter.books.budgets.both(caller.project, caller.key_id):
        return None
    draft = commands.draft_job(svc.db, svc.clock, svc.settings, caller, request)
    try:
        _, counts = _counts(svc, draft, CREATE_TIMEOUT_S)
    except ApiError:
        return None
    if counts.fault is not None:
        return None
    _, hyper = _resolved(draft, counts)
    return counts.num_tokens * hyper.n_epochs


def _counts(
    svc: Services, draft: JobRow, timeout_s: float | None = None
) -> tuple[BaseInfo, Counts]:
    with svc.db.read() as conn:
        base = bases.get(conn, draft.base)
        file = files.get(conn, draft.project_id, draft.training_file)
    assert base is not None and file is not None, "the draft was checked"
    path = str(svc.blobs.path(file.id))
    asking = Request(path, str(base.path), draft.method, base.context_length)

    def count() -> Counts:
        found = data.work(
            asking,
            file,
            file.num_bytes,
            "count of tokens of",
            "estimate",
            param="training_file",
            comfort="The job can be created all the same. ",
            timeout_s=timeout_s,
        )
        return Counts(**found)

    return base, _counted.get((file.id, base.fingerprint, draft.method), count)


def _resolved(draft: JobRow, counts: Counts) -> tuple[Method, Hyperparameters]:
    [method] = [each for each in METHODS if each == draft.method]
    return method, resolve(draft.requested, counts.num_examples, method)


def _speed(
    svc: Services, draft: JobRow, base: BaseInfo, counts: Counts, *, measure: bool
) -> Rate | None:
    if counts.fault is not None or counts.num_tokens == 0:
        return None
    method, hyper = _resolved(draft, counts)
    per_step = (
        counts.num_tokens
        * hyper.n_epochs
        / num_steps(counts.num_examples, hyper.n_epochs, hyper.batch_size)
    )
    known = rate.past_rate(
        svc.settings.jobs_dir, base.path, method, hyper.finetuning_type, per_step
    )
    if known is not None or not measure or draft.method != "supervised":
        return known
    rehearsal = Rehearsal(
        str(svc.blobs.path(draft.training_file)),
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
    method, hyper = _resolved(draft, counts)
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
