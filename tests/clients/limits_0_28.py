"""openai 0.28.1 at limits: it repeats nothing, so scripts read the wait from the message.

PYTHONPATH=<client> python limits_0_28.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import openai
from rate_limits import set_limits

PER_MINUTE = 20


def main(base_url: str, api_key: str, model: str, path: str) -> None:
    openai.api_base = base_url
    openai.api_key = api_key
    try:
        set_limits(base_url, api_key, model, requests_per_1_minute=PER_MINUTE)
        meet_rates(model)
        set_limits(base_url, api_key, model, fine_tuning_jobs_per_1_day=0)
        meet_jobs(model, Path(path))
    finally:
        set_limits(base_url, api_key, model)
    print(f"openai {openai.version.VERSION}: limits passed")


def ask(model: str) -> None:
    messages = [{"role": "user", "content": "Hello!"}]
    openai.ChatCompletion.create(model=model, messages=messages, max_tokens=1)


def meet_rates(model: str) -> None:
    num = 0
    while True:
        try:
            ask(model)
            num += 1
        except openai.error.RateLimitError as error:
            refused = error
            break
    assert num >= PER_MINUTE
    assert refused.json_body["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
    found = re.search(r"try again in ([\d.]+)(ms|s)", str(refused))
    assert found is not None, str(refused)
    time.sleep(float(found[1].rstrip(".")) / (1000 if found[2] == "ms" else 1))
    ask(model)


def meet_jobs(model: str, path: Path) -> None:
    with path.open("rb") as data:
        file = openai.File.create(file=data, purpose="fine-tune")
    try:
        openai.FineTuningJob.create(training_file=file.id, model=model)
    except openai.error.RateLimitError as error:
        assert error.json_body["error"]["code"] == "daily_rate_limit_exceeded"
    else:
        raise AssertionError("a refusal was expected")
    openai.File.delete(file.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
