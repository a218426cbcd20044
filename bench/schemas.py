"""Does every answer fit its schema? The embedded base, which never saw JSON schemas, on over 200.

    python bench/schemas.py [--temperatures 0,1] [--only NAME]

Starts a server, asks for each schema through the official client, and validates what comes. Valid
answers that had to be closed near `max_tokens` are counted apart. Ends with 1 unless all are valid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from openai import AsyncOpenAI

from bench.schema_set import schemas
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import background_server

AT_ONCE = 8
ASK = "Answer in JSON: what is new in Oslo today?"


async def ask(
    client: AsyncOpenAI, name: str, schema: Any, temperature: float
) -> tuple[str, str, int]:
    """(verdict, what was wrong, completion tokens)"""
    answer = await client.chat.completions.create(
        model=EMBEDDED_NAME,
        messages=[{"role": "user", "content": ASK}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        },
        temperature=temperature,
        seed=1,
    )
    [choice] = answer.choices
    assert answer.usage is not None
    num_tokens = answer.usage.completion_tokens
    content = choice.message.content or ""
    try:
        errors = [
            each.message for each in Draft202012Validator(schema).iter_errors(json.loads(content))
        ]
    except ValueError as error:
        errors = [str(error)]
    whole = choice.finish_reason == "stop"
    verdict = "invalid" if errors else "valid" if whole else "valid, closed at max_tokens"
    return verdict, f"{name}: {errors[:1]} {content[:300]}", num_tokens


async def run(base_url: str, api_key: str, temperatures: list[float], only: str | None) -> bool:
    client = AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=2, timeout=600)
    slots = asyncio.Semaphore(AT_ONCE)
    wanted = {name: each for name, each in schemas().items() if only in (None, name)}

    async def one(name: str, schema: Any, temperature: float) -> tuple[str, str, int]:
        async with slots:
            return await ask(client, name, schema, temperature)

    good = True
    for temperature in temperatures:
        start = time.monotonic()
        found = await asyncio.gather(*(one(*item, temperature) for item in wanted.items()))
        verdicts = Counter(verdict for verdict, _, _ in found)
        num_tokens = sum(count for _, _, count in found)
        elapsed_s = time.monotonic() - start
        print(
            f"temperature {temperature:g}: {dict(verdicts)} of {len(found)} schemas, "
            f"{num_tokens / len(found):.0f} tokens an answer, {num_tokens / elapsed_s:.0f} tokens/s"
        )
        for verdict, what, _ in found:
            if verdict == "invalid":
                print(f"  {verdict}  {what}")
        good &= not verdicts["invalid"]
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--temperatures", default="0,1")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    temperatures = [float(each) for each in arguments.temperatures.split(",")]
    with (
        tempfile.TemporaryDirectory() as directory,
        background_server(Path(directory) / "data") as server,
    ):
        work = run(server.base_url, server.api_key, temperatures, arguments.only)
        sys.exit(0 if asyncio.run(work) else 1)


if __name__ == "__main__":
    main()
