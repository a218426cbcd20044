"""/v1/organization/usage and /costs: what was used, by whom, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from fastapi import APIRouter, Request

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.api.usage_query import (
    COLUMNS,
    FILTERS,
    CostRange,
    Range,
    UsageRange,
    filters,
    groups,
)
from tunesmith.jobs import commands
from tunesmith.store.repo import job_costs, usage
from tunesmith.store.repo.usage import Counts, Field, Kind, Total
from tunesmith.tariff import to_dollars
from tunesmith.wire.usage import (
    ActualMoney,
    Amount,
    Bucket,
    CompletionsUsage,
    Costs,
    EmbeddingsUsage,
    JobCost,
    JobMoney,
    ModerationsUsage,
    Result,
    UsagePage,
)

router = APIRouter(route_class=JsonRoute)

Shape = Callable[[Counts, dict[str, Any]], Result]

GROUPS = tuple(name for name in COLUMNS if name != "service_tier")
COST_GROUPS = ("project_id", "line_item", "api_key_id")
COST_FILTERS = {name: FILTERS[name] for name in ("project_ids", "api_key_ids")}
KINDS: tuple[Kind, ...] = ("completions", "embeddings", "moderations", "training")


@router.get("/v1/organization/usage/completions")
def completions_usage(
    request: Request, svc: Svc, part: UsageRange, batch: bool | None = None
) -> UsagePage:
    """Chats and legacy completions. There are no batches here."""
    asked = groups(request, (*GROUPS, "service_tier", "batch"))
    shown: dict[str, Any] = {"batch": False} if "batch" in asked else {}

    def shape(counts: Counts, group: dict[str, Any]) -> Result:
        return CompletionsUsage(
            input_tokens=counts.input_tokens,
            output_tokens=counts.output_tokens,
            num_model_requests=counts.num_requests,
            input_cached_tokens=counts.cached_tokens,
            **shown,
            **group,
        )

    return _usage(svc, request, "completions", part, asked, shape, nothing=bool(batch))


@router.get("/v1/organization/usage/embeddings")
def embeddings_usage(request: Request, svc: Svc, part: UsageRange) -> UsagePage:
    return _usage(
        svc, request, "embeddings", part, groups(request, GROUPS), _input(EmbeddingsUsage)
    )


@router.get("/v1/organization/usage/moderations")
def moderations_usage(request: Request, svc: Svc, part: UsageRange) -> UsagePage:
    return _usage(
        svc, request, "moderations", part, groups(request, GROUPS), _input(ModerationsUsage)
    )


@router.get("/v1/organization/costs")
def costs(request: Request, svc: Svc, part: CostRange) -> UsagePage:
    """At the prices of the time; training is booked when a round of it ends."""
    asked = groups(request, COST_GROUPS)
    columns: list[Field] = [COLUMNS[name] for name in asked if name in COLUMNS]
    by_item = "line_item" in asked
    if by_item:
        columns += ["model", "kind"]
    found = _totals(svc, KINDS, part, columns, filters(request, COST_FILTERS))

    def results(totals: list[Total]) -> list[Result]:
        if by_item:
            return _line_items(totals)
        return [_cost(total.counts.nanos, _group(total, asked)) for total in totals]

    return _paged(part, found, results)


@router.get("/v1/tunesmith/jobs/{job_id}/cost")
def job_cost(job_id: str, svc: Svc, caller: CallerDep) -> JobCost:
    """Before and after."""
    with svc.db.read() as conn:
        commands.get_job(conn, caller.project, job_id)
        row = job_costs.get(conn, job_id)
    estimate = None
    if row.estimated_tokens is not None:
        estimate = JobMoney(tokens=row.estimated_tokens, usd=_usd(row.expected_nanos))
    actual = ActualMoney(
        tokens=row.trained_tokens, usd=_usd(row.nanos), machine_seconds=row.machine_s
    )
    return JobCost(fine_tuning_job_id=job_id, estimate=estimate, actual=actual)


def _usage(
    svc: Services,
    request: Request,
    kind: Kind,
    part: Range,
    asked: list[str],
    shape: Shape,
    *,
    nothing: bool = False,
) -> UsagePage:
    columns: list[Field] = [COLUMNS[name] for name in asked if name in COLUMNS]
    found = [] if nothing else _totals(svc, (kind,), part, columns, filters(request))
    return _paged(
        part, found, lambda totals: [shape(each.counts, _group(each, asked)) for each in totals]
    )


def _totals(
    svc: Services,
    kinds: tuple[Kind, ...],
    part: Range,
    columns: list[Field],
    only: dict[Field, list[str]],
) -> list[Total]:
    svc.meter.flush()
    with svc.db.read() as conn:
        return usage.totals(
            conn,
            kinds=kinds,
            start=part.start,
            end=part.page_end,
            width=part.width_s,
            group_by=columns,
            only=only,
        )


def _paged(
    part: Range, found: list[Total], results: Callable[[list[Total]], list[Result]]
) -> UsagePage:
    by_bucket: dict[int, list[Total]] = {}
    for total in found:
        by_bucket.setdefault(total.bucket, []).append(total)
    data = [
        Bucket(start_time=start, end_time=end, results=results(by_bucket.get(key, [])))
        for key, start, end in part.buckets()
    ]
    return UsagePage(data=data, has_more=part.next_page is not None, next_page=part.next_page)


def _group(total: Total, asked: list[str]) -> dict[str, Any]:
    """Public names; "" was none."""
    return {name: total.group[COLUMNS[name]] or None for name in asked if name in COLUMNS}


def _input(kind: type[EmbeddingsUsage] | type[ModerationsUsage]) -> Shape:
    return lambda counts, group: kind(
        input_tokens=counts.input_tokens, num_model_requests=counts.num_requests, **group
    )


def line_items(
    model: str, kind: str, counts: Counts
) -> Iterator[tuple[str, float, Literal["tokens", "duration_hours"], int]]:
    """(name, quantity, unit, nano-dollars) of what there is of a model."""
    fresh = counts.input_tokens - counts.cached_tokens
    first = "training" if kind == "training" else "input"
    if fresh:
        yield f"{model}, {first}", fresh, "tokens", counts.input_nanos
    if counts.cached_tokens:
        yield f"{model}, cached input", counts.cached_tokens, "tokens", counts.cached_nanos
    if counts.output_tokens:
        yield f"{model}, output", counts.output_tokens, "tokens", counts.output_nanos
    if counts.machine_nanos:
        hours = counts.machine_s / 3600
        yield f"{model}, machine time", hours, "duration_hours", counts.machine_nanos


def _line_items(totals: list[Total]) -> list[Result]:
    sums: dict[tuple[str, str, str, str], tuple[float, int]] = {}
    for total in totals:
        project_id, key_id = total.group.get("project_id", ""), total.group.get("key_id", "")
        model, kind = total.group["model"], total.group["kind"]
        for name, quantity, unit, nanos in line_items(model, kind, total.counts):
            place = (name, unit, project_id, key_id)
            known = sums.get(place, (0, 0))
            sums[place] = (known[0] + quantity, known[1] + nanos)
    return [
        _cost(
            nanos,
            {"project_id": project_id or None, "api_key_id": key_id or None},
            line_item=name,
            quantity=quantity,
            quantity_unit=unit,
        )
        for (name, unit, project_id, key_id), (quantity, nanos) in sorted(sums.items())
    ]


def _cost(nanos: int, group: dict[str, Any], **item: Any) -> Costs:
    return Costs(amount=Amount(value=_usd(nanos)), **group, **item)


def _usd(nanos: int) -> float:
    return float(to_dollars(nanos))
