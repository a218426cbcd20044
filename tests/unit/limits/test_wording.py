"""What callers hear, to the letter."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tunesmith.limits.bucket import Pool
from tunesmith.limits.wording import UNLIMITED, headers, quota_exceeded, rate_limited, too_many_jobs

TPM = Pool("tpm:proj_a:gpt-4o-mini", 200_000, 60.0)
RPM = Pool("rpm:proj_a:gpt-4o-mini", 3, 60.0)
RPD = Pool("rpd:proj_a:gpt-4o-mini", 200, 86400.0)


def refused(pool: Pool, level: float, amount: int) -> tuple[str, str, dict[str, str]]:
    error = rate_limited(
        pool, level, amount, model="gpt-4o-mini", organization="x", project="proj_a"
    )
    assert (error.status, error.code, error.param) == (429, "rate_limit_exceeded", None)
    return error.type, error.message, error.headers


def test_the_published_text_of_tokens() -> None:
    kind, message, shown = refused(TPM, 150, 512)
    assert kind == "tokens"
    assert message == (
        "Rate limit reached for gpt-4o-mini in organization org-x on tokens per min (TPM): "
        "Limit 200000, Used 199850, Requested 512. Please try again in 109ms. "
        "Visit /v1/organization/projects/proj_a/rate_limits to learn more."
    )
    assert shown == {"retry-after": "1", "retry-after-ms": "109"}


def test_the_published_text_of_requests() -> None:
    kind, message, shown = refused(RPM, 0, 1)
    assert kind == "requests"
    assert "on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s." in (
        message
    )
    assert shown == {"retry-after": "20", "retry-after-ms": "20000"}
    _, message, shown = refused(RPD, 0, 1)
    assert "on requests per day (RPD): Limit 200, Used 200" in message
    assert "Please try again in 432s." in message and shown["retry-after"] == "432"


def test_what_can_never_pass_is_not_to_be_tried_again() -> None:
    _, message, shown = refused(TPM, 200_000, 200_001)
    assert message.startswith("Request too large for gpt-4o-mini in organization org-x on tokens")
    assert "Limit 200000, Requested 200001. The input or output tokens must be reduced" in message
    assert shown == {"x-should-retry": "false"}
    _, message, _ = refused(Pool("rpm:p:b", 0, 60.0), 0, 1)
    assert "Limit 0, Requested 1. This limit lets nothing pass." in message


def test_headers_say_what_is_left_and_when_all_is_back() -> None:
    assert headers([RPM, RPD, TPM], [2, 150.7, 199_850.4]) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "20s",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "199850",
        "x-ratelimit-reset-tokens": "45ms",
    }


def test_of_two_limits_the_nearer_end_is_shown() -> None:
    shown = headers([RPM, RPD], [2, 1.5])
    assert shown["x-ratelimit-limit-requests"] == "200"
    assert shown["x-ratelimit-reset-requests"] == "23h49m12s"


def test_no_limit_is_a_large_number() -> None:
    shown = headers([], [])
    for unit in ("requests", "tokens"):
        assert shown[f"x-ratelimit-limit-{unit}"] == str(UNLIMITED)
        assert shown[f"x-ratelimit-remaining-{unit}"] == str(UNLIMITED)
        assert shown[f"x-ratelimit-reset-{unit}"] == "0s"


def test_a_debt_shows_as_nothing_left() -> None:
    shown = headers([TPM], [-1000])
    assert shown["x-ratelimit-remaining-tokens"] == "0"
    assert shown["x-ratelimit-reset-tokens"] == "1m0.3s"


def test_money_and_jobs() -> None:
    error = quota_exceeded("key", Decimal(5), Decimal("4.9999"), Decimal("0.0004200"))
    assert (error.type, error.code) == ("insufficient_quota", "insufficient_quota")
    assert error.message.startswith(
        "You exceeded your current quota, please check your plan and billing details."
    )
    assert "limit of this key is USD 5.00 a month, USD 4.9999 of it" in error.message
    assert "may cost USD 0.00042." in error.message
    error = too_many_jobs(12, "gpt-4o-mini")
    assert error.message == (
        "This fine-tune request has been rate-limited. Your organization has reached the maximum "
        "of 12 fine-tuning requests per day for the model 'gpt-4o-mini'."
    )
    assert (error.type, error.code) == ("invalid_request_error", "daily_rate_limit_exceeded")
    assert error.headers == {"x-should-retry": "false"}


@pytest.mark.parametrize(("amount", "text"), [("5", "USD 5.00"), ("0", "USD 0.00")])
def test_dollars_have_cents(amount: str, text: str) -> None:
    assert text in quota_exceeded("key", Decimal(amount), Decimal(0), Decimal(0)).message
