"""What callers hear of limits: the six headers of every inference answer, and the refusals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from tunesmith.errors import TooMany
from tunesmith.limits.bucket import Pool, reset_s, wait_s
from tunesmith.limits.durations import go_duration, plain_duration, whole_ms

# What is shown for "no limit": clients expect a number, and some keep it in 32 bits.
UNLIMITED = 2**31 - 1

# Kind of a pool -> (what is counted, how messages call it).
KINDS = {
    "rpm": ("requests", "requests per min (RPM)"),
    "rpd": ("requests", "requests per day (RPD)"),
    "tpm": ("tokens", "tokens per min (TPM)"),
}
NEVER_AGAIN = {"x-should-retry": "false"}


def kind_of(pool: Pool) -> str:
    """ "rpm" of a pool with the key "rpm:project:base"."""
    return pool.key.partition(":")[0]


def headers(pools: Sequence[Pool], levels: Sequence[float]) -> dict[str, str]:
    """The published six; of two limits on requests, the one that is nearer to its end."""
    shown: dict[str, tuple[Pool, float]] = {}
    for pool, level in zip(pools, levels, strict=True):
        unit = KINDS[kind_of(pool)][0]
        if unit not in shown or level < shown[unit][1]:
            shown[unit] = (pool, level)
    result = {}
    for unit in ("requests", "tokens"):
        limit, remaining, reset = UNLIMITED, UNLIMITED, "0s"
        if unit in shown:
            pool, level = shown[unit]
            limit, remaining = pool.capacity, max(0, math.floor(level))
            reset = go_duration(reset_s(pool, level))
        result[f"x-ratelimit-limit-{unit}"] = str(limit)
        result[f"x-ratelimit-remaining-{unit}"] = str(remaining)
        result[f"x-ratelimit-reset-{unit}"] = reset
    return result


def rate_limited(
    pool: Pool, level: float, amount: int, *, model: str, organization: str, project: str
) -> TooMany:
    """429 in the published words, from which clients read how long to wait."""
    unit, name = KINDS[kind_of(pool)]
    where = f"for {model} in organization org-{organization} on {name}"
    more = f"Visit /v1/organization/projects/{project}/rate_limits to learn more."
    if amount > pool.capacity:
        cause = (
            "The input or output tokens must be reduced in order to run successfully."
            if unit == "tokens"
            else "This limit lets nothing pass."
        )
        return TooMany(
            f"Request too large {where}: Limit {pool.capacity}, Requested {amount}. {cause} {more}",
            type=unit,
            code="rate_limit_exceeded",
            headers=NEVER_AGAIN,
        )
    pause_s = wait_s(pool, level, amount)
    used = min(pool.capacity, math.ceil(pool.capacity - level))
    return TooMany(
        f"Rate limit reached {where}: Limit {pool.capacity}, Used {used}, Requested {amount}. "
        f"Please try again in {plain_duration(pause_s)}. {more}",
        type=unit,
        code="rate_limit_exceeded",
        headers=retry_headers(pause_s),
    )


def retry_headers(pause_s: float) -> dict[str, str]:
    """Whole seconds for everybody, milliseconds for clients that know of them."""
    ms = max(1, whole_ms(pause_s))
    return {"retry-after": str(math.ceil(ms / 1000)), "retry-after-ms": str(ms)}


def quota_exceeded(owner: str, limit: Decimal, spent: Decimal, cost: Decimal) -> TooMany:
    """429 that no repetition helps: the month's money is spent, or would be by this request."""
    return TooMany(
        "You exceeded your current quota, please check your plan and billing details. The spend "
        f"limit of this {owner} is {dollars(limit)} a month, {dollars(spent)} of it are spent or "
        f"reserved, and this request may cost {dollars(cost)}. A lower max_tokens makes it "
        "cheaper; whoever runs the server can raise the limit with `tunesmith limits spend`.",
        type="insufficient_quota",
        code="insufficient_quota",
        headers=NEVER_AGAIN,
    )


def job_quota_exceeded(message: str) -> TooMany:
    return TooMany(
        message, type="insufficient_quota", code="insufficient_quota", headers=NEVER_AGAIN
    )


def too_many_jobs(limit: int, model: str) -> TooMany:
    return TooMany(
        "This fine-tune request has been rate-limited. Your organization has reached the maximum "
        f"of {limit} fine-tuning requests per day for the model '{model}'.",
        type="invalid_request_error",
        code="daily_rate_limit_exceeded",
        headers=NEVER_AGAIN,
    )


def dollars(amount: Decimal) -> str:
    """ "USD 0.0000042": as many decimals as are needed, and at least cents."""
    exact = amount.quantize(Decimal("0.01")) if amount == round(amount, 2) else amount.normalize()
    return f"USD {exact:f}"
