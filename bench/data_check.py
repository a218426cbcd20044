"""How fast `tunesmith data check --base` reads, checks and tokenises a large chat file.

    python bench/data_check.py [--megabytes 1000] [--runs 1] [--base DIR] [--peer PYTHON]
    python bench/data_check.py --validate [--megabytes 100] [--runs 5] [--peer PYTHON]

Makes the file from real rows (words are mixed into each, so that no two are the same), runs the
report in a process of its own, with a base and without, and prints MB/s by the clock and by CPU
time, and the most memory of all its processes together. With `--peer`, a Python that has `datasets`
and `transformers` counts the same rows' tokens alone, in turn with ours.

With `--validate`: how many MB of such a file a CPU second reads, as rows and as rows that are
valid for a job, beside parsers with a bare look at roles and types, in turns; a `--peer` that has
`orjson` is one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tunesmith.bases import embedded_directory

REPORT = """
import sys
from pathlib import Path
from tunesmith.data.render import Renderer
from tunesmith.data.report import report
base = Path(sys.argv[2]) if sys.argv[2] else None
renderer = Renderer.load(base) if base else None
found = report(Path(sys.argv[1]), renderer=renderer, max_tokens=1 << 20)
print(found.num_rows, found.tokens["total"] if found.tokens else 0)
"""
PEER = """
import os, sys
from datasets import load_dataset
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
def count(batch):
    texts = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
    return {"n": [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]}
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[3])
rows = rows.map(count, batched=True, num_proc=os.cpu_count(), remove_columns=rows.column_names)
print(len(rows), sum(rows["n"]))
"""
# A reader goes through the file; the time of imports is not counted.
READ = """
import sys, time
from pathlib import Path
path = Path(sys.argv[1])
{setup}
started = time.process_time()
num_rows = 0
for row in {rows}:
    num_rows += 1{check}
took_s = time.process_time() - started
peak_kib = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(num_rows, took_s, int(peak_kib) / 1024)
"""
CHECK = """
    messages = row["messages"]
    if type(messages) is not list:
        raise SystemExit("no messages")
    for each in messages:
        if each["role"] not in ROLES or type(each["content"]) is not str:
            raise SystemExit("no message")
"""
LOADS = """
from {module} import loads
ROLES = {{"system", "developer", "user", "assistant", "tool"}}
"""
STRUCTS = """
import msgspec
from typing import Literal
class Message(msgspec.Struct, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
class Row(msgspec.Struct, gc=False):
    messages: list[Message]
decode = msgspec.json.Decoder(Row).decode
"""
OURS_READ = "from tunesmith.data.raw import read_raw"
OURS_VALID = "from tunesmith.data.formats import read_rows"
READERS = {
    "ours, read": READ.format(setup=OURS_READ, rows="read_raw(path)", check=""),
    "ours, read and valid for a job": READ.format(
        setup=OURS_VALID, rows="read_rows(path)", check=""
    ),
    "msgspec structs, roles and types": READ.format(
        setup=STRUCTS, rows="map(decode, path.open('rb'))", check=""
    ),
    "json, roles and types": READ.format(
        setup=LOADS.format(module="json"), rows="map(loads, path.open('rb'))", check=CHECK
    ),
}
ORJSON = READ.format(
    setup=LOADS.format(module="orjson"), rows="map(loads, path.open('rb'))", check=CHECK
)
POLL_S = 0.5


@dataclass(frozen=True)
class Run:
    wall_s: float
    cpu_s: float
    peak_mb: float
    """Of the process and its children, shared pages divided among them (PSS)."""
    printed: str
    """Rows and tokens."""


def main() -> None:
    arguments = _arguments()
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        num_bytes = make_file(path, arguments.rows, arguments.megabytes * 1_000_000)
        if arguments.validate:
            validate(path, num_bytes, arguments.runs, arguments.peer)
            return
        todo = [("check and tokenise", sys.executable, REPORT, arguments.base)]
        if not arguments.base_only:
            todo.append(("check alone", sys.executable, REPORT, ""))
        if arguments.peer:
            name = "datasets + transformers, counting alone"
            todo.append((name, arguments.peer, PEER, arguments.base))
        for number in range(arguments.runs):
            for name, python, code, base in todo:
                cache = Path(directory) / f"cache-{number}"
                run = measure([python, "-c", code, str(path), str(base), str(cache)])
                runs.setdefault(name, []).append(run)
                subprocess.run(["rm", "-rf", str(cache)], check=True)
                show(name, run, num_bytes)
    for name, found in runs.items():
        wall_s, cpu_s = (median(getattr(run, key) for run in found) for key in ("wall_s", "cpu_s"))
        print(f"median of {len(found)}: {name}: {wall_s:.1f} s, {cpu_s:.1f} CPU s")
    if arguments.peer:
        ours, *_, theirs = runs.values()
        for key, word in (("wall_s", "by the clock"), ("cpu_s", "by CPU time")):
            ratios = [getattr(b, key) / getattr(a, key) for a, b in zip(ours, theirs, strict=True)]
            print(f"ratio {word}: {median(ratios):.2f}x their speed (each run: {ratios})")


def validate(path: Path, num_bytes: int, num_runs: int, peer: str | None) -> None:
    """Readers in turns, each in a process of its own."""
    todo = [(name, sys.executable, code) for name, code in READERS.items()]
    if peer:
        todo.append(("orjson, roles and types", peer, ORJSON))
    found: dict[str, list[float]] = {}
    for _ in range(num_runs):
        for name, python, code in todo:
            command = [python, "-c", code, str(path)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            num_rows, took_s, peak_mb = map(float, printed.split())
            speed = num_bytes / 1e6 / took_s
            found.setdefault(name, []).append(speed)
            print(f"{name}: {speed:.0f} MB per CPU s, {num_rows:.0f} rows, {peak_mb:.0f} MB")
    theirs = todo[-1][0]
    for name, speeds in found.items():
        ratios = [ours / other for ours, other in zip(speeds, found[theirs], strict=True)]
        print(
            f"median of {num_runs}: {name}: {median(speeds):.0f} MB per CPU s, "
            f"{median(ratios):.2f}x of {theirs}; load {os.getloadavg()[0]:.1f}"
        )


def make_file(path: Path, source: Path, num_bytes: int) -> int:
    """A chat file of about this size; every row is a real one with a number and words mixed in."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    words = [word for row in rows for word in row["messages"][-1]["content"].split()]
    rng = random.Random(1)
    size = number = 0
    with path.open("w") as file:
        while size < num_bytes:
            messages = [dict(each) for each in rows[number % len(rows)]["messages"]]
            for each in messages[1:]:
                each["content"] += f" {' '.join(rng.choices(words, k=4))} {number}"
            size += file.write(json.dumps({"messages": messages}) + "\n")
            number += 1
    return size


def measure(command: list[str]) -> Run:
    before, started = _cpu_s(), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(map(_pss_mb, _family(process.pid))))
            time.sleep(POLL_S)
        printed = process.stdout.read().strip() if process.stdout else ""
    wall_s = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    return Run(wall_s, _cpu_s() - before, peak, printed)


def _cpu_s() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(each) for task in tasks for each in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return [pid, *(each for child in children for each in _family(child))]


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def show(name: str, run: Run, num_bytes: int) -> None:
    rows, tokens = run.printed.split()
    megabytes = num_bytes / 1e6
    print(
        f"{name}: {megabytes / run.wall_s:.2f} MB/s ({run.wall_s:.1f} s), "
        f"{megabytes / run.cpu_s:.2f} MB per CPU second ({run.cpu_s:.1f} s), "
        f"at most {run.peak_mb:.0f} MB, {rows} rows, {tokens} tokens; "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rows", type=Path, default=root / "tests" / "data" / "sgd_chat.jsonl")
    parser.add_argument("--base", default=str(embedded_directory()))
    parser.add_argument("--base-only", action="store_true", help="leave out the check alone")
    parser.add_argument("--validate", action="store_true", help="read and validate, no more")
    parser.add_argument("--peer", help="a Python with datasets and transformers, or with orjson")
    return parser.parse_args()


if __name__ == "__main__":
    main()
