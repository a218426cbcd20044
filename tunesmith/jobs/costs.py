"""What a job may cost, will cost and did cost: inside the transactions that move it on."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import sqlalchemy as sa

from tunesmith.access import Caller
from tunesmith.config import Settings
from tunesmith.jobdir.outcome import Failure
from tunesmith.limits import wording
from tunesmith.limits.budgets import Budgets
from tunesmith.store.repo import bases, job_costs, jobs, limits, usage
from tunesmith.store.repo.job_costs import JobCost
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.usage import Counts, UsageKey, month_of
from tunesmith.tariff import Rates, rates_of, to_dollars

DAY_S = 86400


def admit(
    conn: sa.Connection, settings: Settings, caller: Caller, job: JobRow, cost: JobCost, now: int
) -> None:
    """Raises TooMany for a job beyond the day's number, or beyond the money that is left.

    `cost`: as far as it is known; a later look, when the job's files were read, knows it all.
    """
    root = bases.root_of(conn, job.base)
    most = limits.get_rates(conn, caller.project, root).jobs_per_day
    most = settings.jobs_per_day if most is None else most
    if most is not None and most != limits.NO_LIMIT:
        created = jobs.count_by_base(conn, caller.project, since=now - DAY_S)
        num = sum(count for name, count in created.items() if bases.root_of(conn, name) == root)
        if num >= most:
            raise wording.too_many_jobs(most, job.model)
    for owner, limit, spent in _budgets(conn, settings, job, now):
        if spent >= limit:
            kind = "key" if owner == caller.key_id else "project"
            raise wording.quota_exceeded(
                kind, limit=to_dollars(limit), spent=to_dollars(spent), cost=Decimal(0)
            )
        if spent + cost.expected_nanos > limit:
            raise wording.job_quota_exceeded(_beyond("this job", owner, cost, limit - spent))


def expected(
    conn: sa.Connection,
    settings: Settings,
    job: JobRow,
    num_trained: int,
) -> JobCost:
    """Price x tokens of the file x epochs, and the time that earlier jobs took for as many."""
    rates = _rates(conn, settings, job)
    pace = job_costs.pace(conn, job.base) if rates.machine_hour else None
    return replace(
        job_costs.get(conn, job.id),
        estimated_tokens=num_trained,
        estimated_nanos=rates.trained(num_trained),
        expected_machine_nanos=0 if pace is None else rates.machine(num_trained * pace),
    )


def is_time_priced(settings: Settings) -> bool:
    """Whether the hours of any base's jobs cost something."""
    return any(rates.machine_hour for rates in settings.prices.values())


def foresee(conn: sa.Connection, settings: Settings, job_id: str, round_s: float) -> None:
    """The present round of training is expected to take so long in all."""
    job = jobs.get_any(conn, job_id)
    assert job is not None, "jobs are never deleted"
    cost = job_costs.get(conn, job_id)
    nanos = _rates(conn, settings, job).machine(cost.machine_s + round_s)
    job_costs.put(conn, replace(cost, expected_machine_nanos=nanos))


def beyond_budget(
    conn: sa.Connection, settings: Settings, job: JobRow, cost: JobCost, now: int
) -> Failure | None:
    """Why a job that would cost that much must not start."""
    for owner, limit, spent in _budgets(conn, settings, job, now):
        if spent + cost.expected_nanos > limit:
            told = _beyond(f"job {job.id}", owner, cost, limit - spent)
            return Failure("insufficient_quota", told)
    return None


def _beyond(job: str, owner: str, cost: JobCost, left: int) -> str:
    return (
        "Creating this fine-tuning job would exceed your hard limit, please check your plan and "
        f"billing details. Cost of {job}: {wording.dollars(to_dollars(cost.expected_nanos))}. "
        f"Quota remaining for {owner}: {wording.dollars(to_dollars(max(0, left)))}. Fewer epochs "
        "or rows make it cheaper; `tunesmith limits spend` raises the limit."
    )


def account(
    conn: sa.Connection,
    settings: Settings,
    job: JobRow,
    *,
    trained_tokens: int,
    machine_s: float,
    billed: bool,
    now: int,
) -> None:
    """A round of training has ended, in which the job came to have trained so many tokens.

    Books what is new since the last time. Rounds that only the server ended are not `billed`: what
    they trained is in what the next one ends with.
    """
    before = job_costs.get(conn, job.id)
    after = replace(before, machine_s=before.machine_s + round(machine_s))
    if billed:
        rates = _rates(conn, settings, job)
        num_tokens = max(before.trained_tokens, trained_tokens)
        after = replace(
            after,
            trained_tokens=num_tokens,
            training_nanos=before.training_nanos
            + rates.trained(num_tokens - before.trained_tokens),
            machine_nanos=rates.machine(after.machine_s),
        )
        usage.add(conn, [_row(conn, job, before, after, now)])
    job_costs.put(conn, after)


def _row(
    conn: sa.Connection, job: JobRow, before: JobCost, after: JobCost, now: int
) -> tuple[UsageKey, Counts]:
    base = bases.root_of(conn, job.base)
    key = UsageKey(
        minute=now - now % 60,
        project_id=job.project_id,
        key_id=job.key_id or "",
        user_id="",
        model=base,
        base=base,
        kind="training",
    )
    counts = Counts(
        num_requests=1,
        input_tokens=after.trained_tokens - before.trained_tokens,
        machine_s=after.machine_s - before.machine_s,
        input_nanos=after.training_nanos - before.training_nanos,
        machine_nanos=max(0, after.machine_nanos - before.machine_nanos),
    )
    return key, counts


def _rates(conn: sa.Connection, settings: Settings, job: JobRow) -> Rates:
    return rates_of(settings.prices, bases.root_of(conn, job.base))


def _budgets(
    conn: sa.Connection, settings: Settings, job: JobRow, now: int
) -> list[tuple[str, int, int]]:
    """(owner, limit, spent or reserved by other jobs) of the project and key that have one."""
    budgets = Budgets.of(settings.spend_per_month, limits.all_budgets(conn))
    found = budgets.both(job.project_id, job.key_id)
    if not found:
        return []
    spent = usage.spent_in(conn, month_of(now))
    reserved = job_costs.reserved(conn, but=job.id)
    return [(owner, limit, spent.get(owner, 0) + reserved.get(owner, 0)) for owner, limit in found]
