"""Accounts and limits of a real server under load, also while its processes are killed.

TUNESMITH_LOAD=1000 pytest tests/faults/test_metering.py     a shorter load
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.faults.load import Client, Reply, at_once
from tests.faults.test_server import kill_one, rows
from tests.redis_server import redis_server
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server, background_server
from tunesmith.store.db import open_database
from tunesmith.store.repo import job_costs, usage
from tunesmith.store.repo.limits import NO_LIMIT
from tunesmith.store.repo.usage import Counts

NUM_REQUESTS = int(os.environ.get("TUNESMITH_LOAD", "10000"))
NUM_CLIENTS = 32
KILLS_AT = (0.3, 0.6, 0.85)
# So much may a killed process take with it.
LOST_S = 1.0
# Dollars for 1,000 tokens; so a token costs 20, 60 and 30 nano-dollars.
PRICES = {"*": {"input": 0.00002, "output": 0.00006, "training": 0.00003}}
LIMITED_S = 60.0
PER_MINUTE = 240


@dataclass(frozen=True)
class Place:
    server: Server
    client: OpenAI
    tuned: str
    job_id: str

    @property
    def models(self) -> tuple[str, str]:
        return EMBEDDED_NAME, self.tuned


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with prices, and a job that survived the death of its worker."""
    data = tmp_path_factory.mktemp("metering") / "data"
    with background_server(data, {"TUNESMITH_PRICES": json.dumps(PRICES)}) as server:
        client = OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=10)
        file = client.files.create(file=("rows.jsonl", rows("m")), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=EMBEDDED_NAME, training_file=file.id)
        kills = 0
        while job.status not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.2)
            job = client.fine_tuning.jobs.retrieve(job.id)
            if job.status == "running" and kills < 2:
                kills += kill_one(server, "tunesmith.jobs")
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model is not None
        yield Place(server, client, job.fine_tuned_model, job.id)


def booked(data: Path, kind: usage.Kind) -> Counts:
    db = open_database(data)
    with db.read() as conn:
        found = usage.totals(conn, kinds=(kind,), start=0, end=2**40, width=2**40)
    db.close()
    return found[0].counts if found else Counts()


def test_a_job_costs_what_was_foretold_and_is_booked_once(place: Place) -> None:
    db = open_database(place.server.data)
    with db.read() as conn:
        cost = job_costs.get(conn, place.job_id)
    db.close()
    job = place.client.fine_tuning.jobs.retrieve(place.job_id)
    assert cost.estimated_tokens == cost.trained_tokens == job.trained_tokens
    assert cost.estimated_nanos == cost.training_nanos == cost.trained_tokens * 30
    counts = booked(place.server.data, "training")
    assert (counts.input_tokens, counts.nanos) == (cost.trained_tokens, cost.nanos)


def test_ten_thousand_requests_while_the_api_is_killed(place: Place) -> None:
    kills: list[float] = []
    num_seen = 0

    def kill(_: Reply) -> None:
        nonlocal num_seen
        num_seen += 1
        if len(kills) < len(KILLS_AT) and num_seen >= KILLS_AT[len(kills)] * NUM_REQUESTS:
            kills.append(time.time())
            assert kill_one(place.server, "tunesmith.api")

    before = booked(place.server.data, "completions")
    replies = at_once(
        [place.server.root],
        place.server.api_key,
        place.models,
        num_clients=NUM_CLIENTS,
        num_requests=NUM_REQUESTS,
        seen=kill,
    )
    time.sleep(2 * LOST_S)
    after = booked(place.server.data, "completions")
    answered = [reply for reply in replies if reply.status == 200]
    unknown = [reply for reply in replies if reply.status == 0]
    assert len(answered) + len(unknown) == NUM_REQUESTS
    assert len(kills) == len(KILLS_AT)
    at_risk = [r for r in answered if any(kill - LOST_S <= r.at <= kill + 0.1 for kill in kills)]
    num = after.num_requests - before.num_requests
    least, most = len(answered) - len(at_risk), len(answered) + len(unknown)
    print(
        f"\n{NUM_REQUESTS} requests, {len(kills)} kills: {len(answered)} answered, "
        f"{len(unknown)} cut off, {num} booked ({len(answered) - num} answered ones missing; "
        f"{len(at_risk)} were answered within {LOST_S:g} s before a kill)"
    )
    assert least <= num <= most
    # Each is 3 tokens in, 1 out.
    assert all(reply.tokens == (3, 1) for reply in answered)
    assert after.input_tokens - before.input_tokens == 3 * num
    assert after.output_tokens - before.output_tokens == num
    assert after.nanos - before.nanos == num * (3 * 20 + 60)


def test_without_kills_the_totals_are_exact(place: Place) -> None:
    before = booked(place.server.data, "completions")
    num = NUM_REQUESTS // 10
    replies = at_once(
        [place.server.root],
        place.server.api_key,
        place.models,
        num_clients=NUM_CLIENTS,
        num_requests=num,
    )
    assert [reply.status for reply in replies] == [200] * num
    costs = place.client.get("/organization/costs?start_time=0&limit=1", cast_to=object)
    assert costs
    after = booked(place.server.data, "completions")
    assert after.num_requests - before.num_requests == num
    assert after.input_tokens - before.input_tokens == 3 * num


def limit(root: str, api_key: str, **limits: int) -> None:
    url = f"{root}/v1/organization/projects/{DEFAULT_PROJECT}/rate_limits/rl-{EMBEDDED_NAME}"
    headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
    body = {f"max_{name}": value for name, value in limits.items()}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    urllib.request.urlopen(request).close()


def drained(root: str, api_key: str, model: str) -> None:
    """Takes what the bucket has saved up."""
    client = Client(root, api_key)
    while client.complete(model).status == 200:
        pass
    client.close()


def check_limited(roots: list[str], api_key: str, models: tuple[str, ...]) -> None:
    """Twice the limit is asked for, of several models and processes; the limit passes."""
    drained(roots[0], api_key, models[0])
    started = time.time()
    replies = at_once(
        roots,
        api_key,
        models,
        num_clients=8,
        num_requests=int(2 * PER_MINUTE * LIMITED_S / 60),
        per_s=2 * PER_MINUTE / 60,
    )
    took_s = max(reply.at for reply in replies) - started
    passed = [reply for reply in replies if reply.status == 200]
    expected = PER_MINUTE * took_s / 60
    print(f"\n{len(replies)} requests in {took_s:.2f} s: {len(passed)} passed of {expected:.1f}")
    assert {reply.status for reply in replies} == {200, 429}
    assert abs(len(passed) - expected) <= 0.01 * expected + 1
    for reply in replies:
        assert reply.headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
        if reply.status == 429:
            assert 1 <= int(reply.headers["retry-after-ms"]) <= 60_000 / PER_MINUTE
            assert reply.body["error"]["type"] == "requests"


def test_twice_the_limit_gets_the_limit_tuned_and_base_together(place: Place) -> None:
    server = place.server
    limit(server.root, server.api_key, requests_per_1_minute=PER_MINUTE)
    check_limited([server.root], server.api_key, place.models)
    limit(server.root, server.api_key, requests_per_1_minute=NO_LIMIT)


@contextmanager
def another_api(data: Path, redis_url: str) -> Iterator[str]:
    """One more API process on a data directory whose engine is running."""
    environment: dict[str, Any] = {
        **os.environ,
        "TUNESMITH_DATA": str(data),
        "TUNESMITH_PORT": "0",
        "TUNESMITH_REDIS_URL": redis_url,
        "TUNESMITH_REQUESTS_PER_MINUTE": str(PER_MINUTE),
    }
    command = [sys.executable, "-m", "tunesmith.api"]
    # A file: a pipe that nobody reads would stop the process.
    log = data / "log" / f"another-{time.monotonic_ns()}.log"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stderr=output) as api:
        try:
            while "running on" not in log.read_text():
                assert api.poll() is None, log.read_text()
                time.sleep(0.05)
            port = log.read_text().partition("running on http://127.0.0.1:")[2].split()[0]
            yield f"http://127.0.0.1:{port}"
        finally:
            api.terminate()


def test_two_api_processes_share_one_limit_through_redis(place: Place) -> None:
    server = place.server
    limit(server.root, server.api_key, requests_per_1_minute=PER_MINUTE)
    with (
        redis_server() as redis,
        another_api(server.data, redis.url) as first,
        another_api(server.data, redis.url) as second,
    ):
        check_limited([first, second], server.api_key, place.models)
    limit(server.root, server.api_key, requests_per_1_minute=NO_LIMIT)
