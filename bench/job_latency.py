"""Seconds from `jobs.create` to the tuned model's first answer, and where they go.

A ten-row job on a server that is up, with the embedded base, three epochs' worth of `auto`. The
borders between the parts are the times of the files in the job's directory:

    accept         jobs.create has returned
    validate       queued, claimed, both files read: validation.json
    start          claimed again, the trainer's process is there: process.json
    load           base model in memory, first decisions taken: plan.json
    train          all steps, last checkpoint: result.json
    publish        the job says succeeded
    first answer   one short chat completion of the tuned model

    python bench/job_latency.py [--runs 5]
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import background_server

NUM_ROWS = 10
POLL_S = 0.02
BORDERS = (
    ("validate", "validation.json"),
    ("start", "process.json"),
    ("load", "plan.json"),
    ("train", "result.json"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of a small fine-tuning job.")
    parser.add_argument("--runs", type=int, default=5)
    num_runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "train.jsonl"
        path.write_text("".join(row(number) for number in range(NUM_ROWS)))
        with background_server(Path(scratch) / "data") as server:
            client = OpenAI(base_url=server.base_url, api_key=server.api_key)
            file = client.files.create(file=path, purpose="fine-tune")
            runs = [measure(client, file.id, server.data / "jobs") for _ in range(num_runs)]
    show(runs)


def row(number: int) -> str:
    messages = [
        {"role": "user", "content": f"What comes after {number}?"},
        {"role": "assistant", "content": f"After {number} comes {number + 1}."},
    ]
    return json.dumps({"messages": messages}) + "\n"


def measure(client: OpenAI, file_id: str, jobs_dir: Path) -> dict[str, float]:
    """Seconds of each part, in order."""
    moments = [("", time.time())]
    job: Any = client.fine_tuning.jobs.create(model=EMBEDDED_NAME, training_file=file_id)
    moments.append(("accept", time.time()))
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(POLL_S)
        job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != "succeeded":
        raise SystemExit(f"the job {job.status}: {job.error}")
    end = time.time()
    moments += [(part, (jobs_dir / job.id / file).stat().st_mtime) for part, file in BORDERS]
    moments.append(("publish", end))
    question: Any = [{"role": "user", "content": "What comes after 3?"}]
    client.chat.completions.create(model=job.fine_tuned_model, messages=question, max_tokens=16)
    moments.append(("first answer", time.time()))
    parts = {name: at - before for (_, before), (name, at) in itertools.pairwise(moments)}
    return parts | {"total": moments[-1][1] - moments[0][1]}


def show(runs: list[dict[str, float]]) -> None:
    print(f"{NUM_ROWS}-row job, {EMBEDDED_NAME}, seconds, {len(runs)} runs")
    table = Table("part", "first", "median", "worst")
    for part in runs[0]:
        values = [run[part] for run in runs]
        table.add_row(part, *(f"{s:.2f}" for s in (values[0], median(values), max(values))))
    Console().print(table)


if __name__ == "__main__":
    main()
