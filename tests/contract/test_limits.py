"""Limits and budgets through the API, on a real engine with a tiny random model."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.service import BASE, KEY, ROW, Service, engine_of, make_service, reopened
from tests.tiny_base import write_tiny_base
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.bases import describe
from tunesmith.ids import SystemClock
from tunesmith.limits.wording import UNLIMITED
from tunesmith.store.repo import bases, keys, limits, models, usage
from tunesmith.store.repo.models import ModelRow
from tunesmith.tariff import NANOS, Rates

CHAT = "/v1/chat/completions"
SAY_HI = [{"role": "user", "content": "the quick brown fox"}]
HEADERS = [
    f"x-ratelimit-{what}-{unit}"
    for what in ("limit", "remaining", "reset")
    for unit in ("requests", "tokens")
]
DURATION = re.compile(r"(\d+h)?(\d+m)?[\d.]+s|\d+ms")
TUNED = "ft:tiny:personal::abcdefgh"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("limits")
    service = make_service(root / "data")
    with service.db.write() as conn:
        bases.insert(conn, describe(write_tiny_base(root / "tiny"), "tiny", SystemClock()))
    add_tuned(service)
    with engine_of(root / "data"):
        yield service


def add_tuned(service: Service) -> None:
    """Runs on the base itself; what counts here is that it is another model."""
    file = service.client.files.create(file=("rows.jsonl", ROW), purpose="fine-tune")
    job = service.client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    row = ModelRow(
        name=TUNED,
        project_id=DEFAULT_PROJECT,
        kind="tuned",
        label="tiny",
        base="tiny",
        adapter_sha256=None,
        job_id=job.id,
        created_at=0,
        owned_by="org-personal",
    )
    with service.db.write() as conn:
        models.insert(conn, row)


def chat(service: Service, **given: Any) -> Any:
    body = {"model": "tiny", "messages": SAY_HI, "max_tokens": 1, "temperature": 0} | given
    return service.http.post(CHAT, json=body)


def remaining(answer: Any, unit: str = "requests") -> int:
    return int(answer.headers[f"x-ratelimit-remaining-{unit}"])


def used(answer: Any) -> int:
    total: int = answer.json()["usage"]["total_tokens"]
    return total


def own_key(service: Service) -> str:
    with service.db.read() as conn:
        return keys.list_all(conn)[0].id


@pytest.mark.parametrize(
    ("path", "given"),
    [
        (CHAT, {}),
        (CHAT, {"stream": True}),
        ("/v1/completions", {"prompt": "the fox " * 30}),
        ("/v1/completions", {"prompt": "the fox " * 30, "stream": True}),
        ("/v1/embeddings", {"input": "the fox " * 30}),
    ],
)
def test_every_answer_carries_the_six_headers(live: Service, path: str, given: Any) -> None:
    body: Any = {"model": "tiny"} | given
    if path != "/v1/embeddings":
        body |= {"max_tokens": 1}
    if path == CHAT:
        body |= {"messages": SAY_HI}
    free = live.http.post(path, json=body)
    assert free.status_code == 200, free.text
    assert [free.headers[name] for name in HEADERS] == [str(UNLIMITED)] * 4 + ["0s", "0s"]
    limited = reopened(live, requests_per_day=1000, tokens_per_minute=300)
    first, second = (limited.http.post(path, json=body) for _ in range(2))
    assert all(name in first.headers for name in HEADERS)
    assert first.headers["x-ratelimit-limit-requests"] == "1000"
    assert first.headers["x-ratelimit-limit-tokens"] == "300"
    assert [remaining(first), remaining(second)] == [999, 998]
    assert 0 < remaining(second, "tokens") < remaining(first, "tokens") < 300
    for unit in ("requests", "tokens"):
        assert DURATION.fullmatch(first.headers[f"x-ratelimit-reset-{unit}"])


def test_a_tuned_model_draws_on_the_pool_of_its_base(live: Service) -> None:
    limited = reopened(live, requests_per_minute=6)
    answers = [chat(limited, model=("tiny", TUNED)[number % 2]) for number in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert [remaining(answer) for answer in answers] == [5, 4, 3, 2, 1, 0, 0, 0]
    # Another base has a pool of its own.
    assert remaining(chat(limited, model="gpt-4o-mini")) == 5
    refusal = answers[-1]
    error = refusal.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "requests",
        "rate_limit_exceeded",
        None,
    )
    assert (
        "Rate limit reached for ft:tiny:personal::abcdefgh in organization org-personal on "
        in (error["message"])
    )
    found = re.search(r"try again in ([\d.]+)(ms|s)", error["message"])
    assert found is not None
    wait_ms = float(found[1].rstrip(".")) * (1000 if found[2] == "s" else 1)
    assert wait_ms == float(refusal.headers["retry-after-ms"]) <= 10_000
    assert int(refusal.headers["retry-after"]) == -(-int(refusal.headers["retry-after-ms"]) // 1000)


def test_tokens_are_reserved_and_what_was_not_used_comes_back(live: Service) -> None:
    limited = reopened(live, tokens_per_minute=1000)
    started = time.monotonic()
    answer = chat(limited, max_tokens=500)
    num_prompt = answer.json()["usage"]["prompt_tokens"]
    assert remaining(answer, "tokens") == 1000 - num_prompt - 500
    after = chat(limited)
    least = 1000 - used(answer) - num_prompt - 1
    refilled = (time.monotonic() - started) * 1000 / 60
    assert least <= remaining(after, "tokens") <= least + refilled + 1


def test_a_request_larger_than_the_limit_is_told_so(live: Service) -> None:
    limited = reopened(live, tokens_per_minute=100)
    answer = chat(limited, max_tokens=200)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (429, "tokens")
    assert error["message"].startswith("Request too large for tiny in organization org-personal on")
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert remaining(answer, "tokens") == 100


def test_a_request_that_failed_gives_its_tokens_back(live: Service, tmp_path: Path) -> None:
    service = make_service(tmp_path / "data", tokens_per_minute=1000, requests_per_minute=10)
    answer = chat(service, model="gpt-4o-mini", max_tokens=400)
    assert answer.status_code == 503  # there is no engine
    assert remaining(answer, "tokens") < 600
    assert remaining(chat(service, model="gpt-4o-mini", max_tokens=1), "tokens") > 900


def test_the_day_goes_on_after_a_restart(live: Service) -> None:
    limited = reopened(live, requests_per_day=200)
    before = 200 - remaining(chat(limited))
    assert limited.http.get("/v1/organization/costs?start_time=0&limit=1").status_code == 200
    again = reopened(live, requests_per_day=200)
    assert remaining(chat(again)) == 200 - before - 1


def test_budgets_stop_before_they_are_passed(live: Service) -> None:
    """10 dollars for 1,000 tokens of an answer; prompts are free."""
    prices = {"*": Rates(output=Decimal(10))}
    key_id = own_key(live)
    with live.db.write() as conn:
        limits.set_budget(conn, key_id, int(0.055 * NANOS))
    limited = reopened(live, prices=prices)
    assert chat(limited, max_tokens=6).status_code == 429
    answers = [chat(limited) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    error = answers[-1].json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert error["message"].startswith("You exceeded your current quota, please check your plan")
    assert "of this key is USD 0.055 a month" in error["message"]
    assert answers[-1].headers["x-should-retry"] == "false"
    with live.db.write() as conn:
        limits.set_budget(conn, key_id, None)
    limited.http.get("/v1/organization/costs?start_time=0&limit=1")
    assert chat(limited).status_code == 200
    # A project's budget counts what all its keys have spent: 6 tokens by now.
    limited.http.get("/v1/organization/costs?start_time=0&limit=1")
    other = reopened(live, prices=prices, spend_per_month=Decimal("0.075"))
    assert [chat(other).status_code for _ in range(2)] == [200, 429]


def test_what_another_process_has_written_is_seen_at_once(live: Service) -> None:
    key_id = own_key(live)
    one, other = (reopened(live, prices={"*": Rates(output=Decimal(10))}) for _ in range(2))
    with live.db.write() as conn:
        spent = usage.spent_in(conn, usage.month_of(int(time.time()))).get(key_id, 0)
        limits.set_budget(conn, key_id, spent + int(0.02 * NANOS))
    flush = "/v1/organization/costs?start_time=0&limit=1"
    assert [each.http.get(flush).status_code for each in (one, other)] == [200, 200]
    assert [chat(one).status_code for _ in range(3)] == [200, 200, 429]
    one.http.get(flush)
    assert chat(other).status_code == 429
    with live.db.write() as conn:
        limits.set_budget(conn, key_id, None)


def test_a_job_beyond_the_budget_is_not_created(tmp_path: Path) -> None:
    """A dollar for 1,000 tokens."""
    prices = {"*": Rates(training=Decimal(1))}
    service = make_service(tmp_path / "data", prices=prices, spend_per_month=Decimal(10))
    file = service.client.files.create(file=("rows.jsonl", ROW * 12), purpose="fine-tune")
    body = {"model": BASE, "training_file": file.id, "hyperparameters": {"n_epochs": 1}}
    path = "/v1/fine_tuning/jobs"
    asked = service.http.post("/v1/tunesmith/jobs/estimate", json=body).json()
    cost = Decimal(asked["trained_tokens"]) / 1000
    with service.db.write() as conn:
        limits.set_budget(conn, DEFAULT_PROJECT, int(cost * 2 * NANOS) - 1)
    service.http.get("/v1/organization/costs?start_time=0&limit=1")
    answers = [service.http.post(path, json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    error = answers[1].json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert error["message"].startswith(
        "Creating this fine-tuning job would exceed your hard limit, please check your plan and "
        f"billing details. Cost of this job: USD {cost.normalize():f}. Quota remaining for"
    )
    assert answers[1].headers["x-should-retry"] == "false"
    # What cannot be counted fails as a job, as it does without a budget.
    broken = service.client.files.create(file=("rows.jsonl", b"{}"), purpose="fine-tune")
    assert service.http.post(path, json=body | {"training_file": broken.id}).status_code == 200
    job_id = answers[0].json()["id"]
    assert service.http.get(f"/v1/tunesmith/jobs/{job_id}/cost").json()["estimate"] == {
        "tokens": asked["trained_tokens"],
        "usd": float(cost),
    }
    service.client.fine_tuning.jobs.cancel(job_id)
    assert service.http.post(path, json=body).status_code == 200


def test_many_at_once_do_not_pass_a_budget_together(live: Service) -> None:
    key_id = own_key(live)
    service = reopened(live, prices={"*": Rates(output=Decimal(10))})
    service.http.get("/v1/organization/costs?start_time=0&limit=1")
    with live.db.write() as conn:
        spent = usage.spent_in(conn, usage.month_of(int(time.time()))).get(key_id, 0)
        limits.set_budget(conn, key_id, spent + int(0.05 * NANOS))
    service.http.get("/v1/organization/costs?start_time=0&limit=1")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: chat(service), range(24)))
    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 19}
    with live.db.write() as conn:
        limits.set_budget(conn, key_id, None)


def test_jobs_of_a_day(live: Service, tmp_path: Path) -> None:
    service = make_service(tmp_path / "data", jobs_per_day=2)
    file = service.client.files.create(file=("rows.jsonl", ROW), purpose="fine-tune")
    body = {"model": "gpt-4o-mini", "training_file": file.id}
    answers = [service.http.post("/v1/fine_tuning/jobs", json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    error = answers[-1].json()["error"]
    assert error == {
        "message": "This fine-tune request has been rate-limited. Your organization has reached "
        "the maximum of 2 fine-tuning requests per day for the model 'gpt-4o-mini'.",
        "type": "invalid_request_error",
        "param": None,
        "code": "daily_rate_limit_exceeded",
    }
    assert answers[-1].headers["x-should-retry"] == "false"


def test_the_published_rate_limits_of_a_project(live: Service) -> None:
    url = f"/v1/organization/projects/{DEFAULT_PROJECT}/rate_limits"
    service = reopened(live, requests_per_minute=60)
    client = OpenAI(admin_api_key=KEY, base_url="http://testserver/v1", http_client=service.http)  # type: ignore[arg-type]
    shown = list(client.admin.organization.projects.rate_limits.list_rate_limits(DEFAULT_PROJECT))
    first = next(each for each in shown if each.model == "tiny")
    assert (first.id, first.max_requests_per_1_minute) == ("rl-tiny", 60)
    assert first.max_tokens_per_1_minute == UNLIMITED
    changed = service.http.post(f"{url}/rl-tiny", json={"max_requests_per_1_minute": 2})
    assert changed.json()["max_requests_per_1_minute"] == 2
    assert [chat(service).status_code for _ in range(3)] == [200, 200, 429]
    other = reopened(live, requests_per_minute=60)
    assert chat(other).headers["x-ratelimit-limit-requests"] == "2"
    for body, status in (
        ({"max_requests_per_1_minute": -1}, 400),
        ({"max_images_per_1_minute": 1}, 400),
        ({"max_requests_per_1_minute": 2**40}, 200),
    ):
        assert service.http.post(f"{url}/rl-tiny", json=body).status_code == status
    assert chat(service).headers["x-ratelimit-limit-requests"] == str(UNLIMITED)
    assert service.http.post(f"{url}/rl-none", json={}).status_code == 404
    assert service.http.get(url.replace(DEFAULT_PROJECT, "proj_none")).status_code == 404
    page = service.http.get(url, params={"limit": 1}).json()
    assert page["has_more"]
    rest = service.http.get(url, params={"after": page["last_id"]}).json()
    assert [each["id"] for each in (*page["data"], *rest["data"])] == [each.id for each in shown]
    back = service.http.get(url, params={"before": rest["data"][0]["id"], "limit": 1}).json()
    assert back["data"] == page["data"]
    with live.db.write() as conn:
        limits.set_rates(conn, DEFAULT_PROJECT, "tiny", limits.RateLimit())


def test_spend_limits_of_a_project_and_its_keys(tmp_path: Path) -> None:
    service = make_service(tmp_path / "data", spend_per_month=Decimal(100))
    url = f"/v1/tunesmith/projects/{DEFAULT_PROJECT}/spend_limits"
    first, key = service.http.get(url).json()["data"]
    assert (first["id"], first["owner"], key["owner"]) == (DEFAULT_PROJECT, "project", "api_key")
    assert (first["usd_per_month"], first["is_default"]) == (100, True)
    assert (key["usd_per_month"], key["usd_spent"], key["usd_reserved"]) == (None, 0, 0)
    page = service.http.get(url, params={"limit": 1}).json()
    assert (len(page["data"]), page["has_more"]) == (1, True)
    assert service.http.get(url, params={"after": page["last_id"]}).json()["data"] == [key]
    made = service.http.post(f"{url}/{key['id']}", json={"usd_per_month": 12.25}).json()
    assert made == key | {"usd_per_month": 12.25, "is_default": False}
    service.http.post(f"{url}/{DEFAULT_PROJECT}", json={"usd_per_month": 0})
    owners = service.http.get(url).json()["data"]
    assert [each["usd_per_month"] for each in owners] == [0, 12.25]
    file = service.client.files.create(file=("rows.jsonl", ROW), purpose="fine-tune")
    body = {"model": BASE, "training_file": file.id}
    assert service.http.post("/v1/fine_tuning/jobs", json=body).status_code == 429
    back = service.http.post(f"{url}/{DEFAULT_PROJECT}", json={"usd_per_month": None}).json()
    assert back == first
    for owner, given, status in (
        (DEFAULT_PROJECT, {"usd_per_month": -1}, 400),
        (DEFAULT_PROJECT, {"usd_per_month": "1"}, 400),
        (DEFAULT_PROJECT, {}, 400),
        ("key_none", {"usd_per_month": 1}, 404),
    ):
        assert service.http.post(f"{url}/{owner}", json=given).status_code == status, given
    assert service.http.get(url.replace(DEFAULT_PROJECT, "proj_none")).status_code == 404


def test_who_runs_nothing_sees_what_holds_for_its_own_key(tmp_path: Path) -> None:
    service = make_service(tmp_path / "data", requests_per_day=7)
    made = service.http.post("/v1/tunesmith/keys", json={"name": "r", "role": "reader"}).json()
    reader = service.anonymous()
    reader.headers["authorization"] = f"Bearer {made['value']}"
    found = reader.get("/v1/tunesmith/limits").json()
    assert found["project_id"] == DEFAULT_PROJECT
    assert {each["max_requests_per_1_day"] for each in found["rate_limits"]} == {7}
    assert [each["id"] for each in found["spend_limits"]] == [DEFAULT_PROJECT, made["id"]]
    for path in ("organization/{}/rate_limits/rl-tiny", "tunesmith/{}/spend_limits/key_none"):
        url = "/v1/" + path.format(f"projects/{DEFAULT_PROJECT}")
        assert reader.post(url, json={}).status_code == 403


def test_more_open_requests_than_the_server_has_room_for(live: Service) -> None:
    service = reopened(live, max_open_requests=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: chat(service, max_tokens=100), range(8)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.headers["retry-after"] == "1"
    assert chat(service).status_code == 200
