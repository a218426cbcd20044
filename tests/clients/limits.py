"""How the official Python client, 1.x to 3.x, behaves at limits: it waits as told, or gives up.

PYTHONPATH=<client> python limits.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import openai
from rate_limits import set_limits

# A bucket of 20 that gains one in 3 s.
PER_MINUTE = 20


def main(base_url: str, api_key: str, model: str, path: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key=api_key)
    try:
        set_limits(base_url, api_key, model, requests_per_1_minute=PER_MINUTE)
        meet_rates(client, model)
        set_limits(base_url, api_key, model, tokens_per_1_minute=50)
        meet_tokens(client, model)
        set_limits(base_url, api_key, model, fine_tuning_jobs_per_1_day=0)
        meet_jobs(client, model, Path(path))
    finally:
        set_limits(base_url, api_key, model)
    print(f"openai {openai.__version__}: limits passed")


def ask(client: Any, model: str, max_tokens: int = 1) -> Any:
    messages: Any = [{"role": "user", "content": "Hello!"}]
    raw = client.chat.completions.with_raw_response
    return raw.create(model=model, messages=messages, max_tokens=max_tokens)


def remaining(answer: Any) -> int:
    return int(answer.headers["x-ratelimit-remaining-requests"])


def meet_rates(client: Any, model: str) -> None:
    patient, hasty = client.with_options(max_retries=2), client.with_options(max_retries=0)
    # The first one waits: another client may just have emptied the bucket.
    left = [remaining(ask(patient, model))]
    while True:
        try:
            left.append(remaining(ask(hasty, model)))
        except openai.RateLimitError as error:
            refused = error
            break
    # It refills meanwhile, so it may go down less than one at a time, or stay.
    assert left == sorted(left, reverse=True) and left[0] < PER_MINUTE and left[-1] == 0, left
    body: Any = refused.body
    assert (refused.code, body["type"]) == ("rate_limit_exceeded", "requests")
    headers = refused.response.headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 0 < int(headers["retry-after-ms"]) <= 60_000 / PER_MINUTE
    started = time.monotonic()
    answer = ask(patient, model)
    assert answer.status_code == 200 and answer.retries_taken >= 1
    assert time.monotonic() - started >= 0.9 * int(headers["retry-after-ms"]) / 1000 - 1


def meet_tokens(client: Any, model: str) -> None:
    started = time.monotonic()
    try:
        ask(client.with_options(max_retries=2), model, max_tokens=60)
    except openai.RateLimitError as error:
        body: Any = error.body
        assert body["type"] == "tokens" and "Request too large" in str(error)
    else:
        raise AssertionError("a refusal was expected")
    # It would never pass, so it was not tried again: that takes half a second and more.
    assert time.monotonic() - started < 2


def meet_jobs(client: Any, model: str, path: Path) -> None:
    file = client.files.create(file=path, purpose="fine-tune")
    started = time.monotonic()
    try:
        client.fine_tuning.jobs.create(model=model, training_file=file.id)
    except openai.RateLimitError as error:
        assert error.code == "daily_rate_limit_exceeded"
        assert error.response.headers["x-should-retry"] == "false"
    else:
        raise AssertionError("a refusal was expected")
    assert time.monotonic() - started < 2
    client.files.delete(file.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
