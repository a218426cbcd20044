"""Usage and costs as the published API shows them, from sums that are there."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from openai import OpenAI

from tests.service import KEY, Service, make_service
from tunesmith.store.repo import usage
from tunesmith.store.repo.usage import Counts, Kind, UsageKey

DAY = 86400
NOON = 1_790_000_000 - 1_790_000_000 % DAY + DAY // 2
USAGE = "/v1/organization/usage"
COSTS = "/v1/organization/costs"


def key(
    at: int, project: str = "proj_a", model: str = "m", kind: Kind = "completions", who: str = "k1"
) -> UsageKey:
    return UsageKey(at - at % 60, project, who, "", model, "base", kind)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Three days: chats of two projects, embeddings, a job."""
    service = make_service(tmp_path_factory.mktemp("usage") / "data")
    chat = Counts(1, 100, 40, 10, 0, 600, 100, 900, 0)
    with service.db.write() as conn:
        for day in range(3):
            at = NOON + day * DAY
            usage.add(conn, [(key(at), chat), (key(at + 60, "proj_b", "n", who="k2"), chat)])
        embedding = Counts(num_requests=2, input_tokens=7, input_nanos=70)
        usage.add(conn, [(key(NOON, kind="embeddings"), embedding)])
        job = Counts(1, 5000, 0, 0, 1800, 4_000_000_000, 0, 0, 1_000_000_000)
        usage.add(conn, [(key(NOON + DAY, kind="training"), job)])
    return service


def get(service: Service, path: str, query: str) -> Any:
    answer = service.http.get(f"{path}?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_days_are_buckets_and_what_is_empty_is_shown_too(service: Service) -> None:
    page = get(
        service, f"{USAGE}/completions", f"start_time={NOON - DAY}&end_time={NOON + 3 * DAY}"
    )
    assert (page["object"], page["has_more"], page["next_page"]) == ("page", False, None)
    spans = [(each["start_time"], each["end_time"]) for each in page["data"]]
    midnight = NOON - DAY // 2
    days = [(midnight + n * DAY, midnight + (n + 1) * DAY) for n in range(3)]
    # Cut to what was asked for at both ends.
    assert spans == [(NOON - DAY, midnight), *days, (midnight + 3 * DAY, NOON + 3 * DAY)]
    assert [len(each["results"]) for each in page["data"]] == [0, 1, 1, 1, 0]
    [first] = page["data"][1]["results"]
    assert first == {
        "object": "organization.usage.completions.result",
        "input_tokens": 200,
        "output_tokens": 20,
        "num_model_requests": 2,
        "input_cached_tokens": 80,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        **dict.fromkeys(("project_id", "user_id", "api_key_id", "model", "batch", "service_tier")),
    }


def test_groups_and_filters_as_clients_send_them(service: Service) -> None:
    client = OpenAI(admin_api_key=KEY, base_url="http://testserver/v1", http_client=service.http)  # type: ignore[arg-type]
    page = client.admin.organization.usage.completions(
        start_time=NOON, end_time=NOON + DAY // 2, group_by=["project_id", "model", "batch"]
    )
    found = [
        (each.project_id, each.model, each.batch, each.api_key_id, each.input_tokens)
        for each in page.data[0].results
        if each.object == "organization.usage.completions.result"
    ]
    assert found == [("proj_a", "m", False, None, 100), ("proj_b", "n", False, None, 100)]
    for query in ("project_ids[]=proj_b", "project_ids=proj_b", "models=n", "api_key_ids[]=k2"):
        [bucket] = get(
            service, f"{USAGE}/completions", f"start_time={NOON}&end_time={NOON + 99}&{query}"
        )["data"]
        assert bucket["results"][0]["num_model_requests"] == 1
    for query in ("project_ids=proj_c", "batch=true", "user_ids=nobody"):
        [bucket] = get(
            service, f"{USAGE}/completions", f"start_time={NOON}&end_time={NOON + 99}&{query}"
        )["data"]
        assert bucket["results"] == []


def test_pages_go_on_where_the_last_one_ended(service: Service) -> None:
    question = f"start_time={NOON - 90}&end_time={NOON + 200}&bucket_width=1m&limit=2"
    page = get(service, f"{USAGE}/completions", question)
    buckets = page["data"]
    while page["has_more"]:
        assert len(page["data"]) == 2
        page = get(service, f"{USAGE}/completions", f"{question}&page={page['next_page']}")
        buckets += page["data"]
    edges = [(each["start_time"], each["end_time"]) for each in buckets]
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(edges))
    # Sums are kept by the minute, so the first one is whole.
    assert (edges[0][0], edges[-1][1]) == (NOON - 120, NOON + 200)
    assert sum(len(each["results"]) for each in buckets) == 2


def test_embeddings_and_moderations(service: Service) -> None:
    query = f"start_time={NOON}&end_time={NOON + 60}&bucket_width=1h"
    [bucket] = get(service, f"{USAGE}/embeddings", query)["data"]
    [result] = bucket["results"]
    assert (result["object"], result["input_tokens"], result["num_model_requests"]) == (
        "organization.usage.embeddings.result",
        7,
        2,
    )
    assert get(service, f"{USAGE}/moderations", query)["data"][0]["results"] == []


def test_costs_by_line_item_add_up(service: Service) -> None:
    query = f"start_time={NOON - DAY // 2}&end_time={NOON + 3 * DAY}"
    whole = get(service, COSTS, query)["data"]
    amounts = [sum(each["amount"]["value"] for each in bucket["results"]) for bucket in whole]
    assert amounts == pytest.approx([3270e-9, 5.0000032, 3200e-9, 0])
    [second] = whole[1]["results"]
    assert (second["object"], second["amount"]["currency"]) == ("organization.costs.result", "usd")
    by_item = get(service, COSTS, f"{query}&group_by[]=line_item&group_by[]=project_id")["data"]
    shown = {
        (each["line_item"], each["project_id"]): (
            each["quantity"],
            each["quantity_unit"],
            each["amount"]["value"],
        )
        for each in by_item[1]["results"]
    }
    assert shown["m, training", "proj_a"] == (5000, "tokens", 4.0)
    assert shown["m, machine time", "proj_a"] == (0.5, "duration_hours", 1.0)
    assert shown["n, cached input", "proj_b"] == (40, "tokens", 1e-7)
    assert shown["n, output", "proj_b"] == (10, "tokens", 9e-7)
    # Chats and embeddings of one model read the same kind of tokens.
    first = {each["line_item"]: each["quantity"] for each in by_item[0]["results"]}
    assert first["m, input"] == 67
    assert sum(each["amount"]["value"] for each in by_item[1]["results"]) == pytest.approx(
        second["amount"]["value"]
    )


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "start_time"),
        ("start_time=abc", "start_time"),
        ("start_time=-1", "start_time"),
        (f"start_time={10**30}", "start_time"),
        (f"start_time={NOON}&end_time={NOON}", "start_time"),
        (f"start_time={NOON}&end_time={2**50}", "end_time"),
        (f"start_time={NOON}&bucket_width=1w", "bucket_width"),
        (f"start_time={NOON}&limit=0", "limit"),
        (f"start_time={NOON}&limit=32", "limit"),
        (f"start_time={NOON}&group_by=colour", "group_by"),
        (f"start_time={NOON}&page=2", "page"),
        (f"start_time={NOON}&page=page_1", "page"),
    ],
)
def test_questions_that_make_no_sense(service: Service, query: str, param: str) -> None:
    answer = service.http.get(f"{USAGE}/completions?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_the_cost_of_no_job(service: Service) -> None:
    assert service.http.get("/v1/tunesmith/jobs/ftjob-none/cost").status_code == 404
