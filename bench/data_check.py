"""How fast a large chat file is checked and tokenised, and in how much memory.

    python bench/data_check.py --megabytes 1000 --rows ROWS.jsonl [--base DIR] [--peer PYTHON]

Makes the file from real rows (a number is written into each, so that no two are the same), runs
the report in a process of its own and prints MB/s and the peak memory of it and its children. With
`--peer`, a Python that has `datasets` and `transformers` counts the same rows' tokens alone.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tunesmith.bases import embedded_directory

# Shared pages count once for each process, so this is an upper bound.
PEAK = """
import os, resource
def peak_mb():
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + most * len(os.sched_getaffinity(0))) // 1024
"""
REPORT = f"""{PEAK}
import sys
from pathlib import Path
from tunesmith.data.render import Renderer
from tunesmith.data.report import report
base = Path(sys.argv[2]) if sys.argv[2] else None
renderer = Renderer.load(base) if base else None
found = report(Path(sys.argv[1]), renderer=renderer, max_tokens=1 << 20)
print(peak_mb(), found.num_rows, found.tokens["total"] if found.tokens else 0)
"""
PEER = f"""{PEAK}
import sys
from datasets import load_dataset
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
def count(batch):
    texts = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
    return {{"n": [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]}}
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[3])
rows = rows.map(count, batched=True, num_proc=os.cpu_count(), remove_columns=rows.column_names)
print(peak_mb(), len(rows), sum(rows["n"]))
"""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        num_bytes = make_file(path, arguments.rows, arguments.megabytes * 1_000_000)
        ours = measure(sys.executable, REPORT, path, arguments.base, directory)
        plain = measure(sys.executable, REPORT, path, "", directory)
        peer = arguments.peer and measure(arguments.peer, PEER, path, arguments.base, directory)
    show("check and tokenise", ours, num_bytes)
    show("check alone", plain, num_bytes)
    if peer:
        show("datasets + transformers, counting alone", peer, num_bytes)
        print(f"ratio: {peer[0] / ours[0]:.2f}x their speed")
    else:
        print("datasets + transformers, counting alone: n/a")


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


def measure(python: str, code: str, path: Path, base: str, cache: str) -> tuple[float, str]:
    """Seconds, and what it printed: the most memory (MB), rows, tokens."""
    started = time.perf_counter()
    done = subprocess.run(
        [python, "-c", code, str(path), str(base), cache],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - started, done.stdout.strip()


def show(name: str, result: tuple[float, str], num_bytes: int) -> None:
    seconds, printed = result
    peak, rows, tokens = printed.split()
    print(
        f"{name}: {num_bytes / 1e6 / seconds:.1f} MB/s ({seconds:.1f} s), "
        f"peak at most {peak} MB, {rows} rows, {tokens} tokens"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rows", type=Path, default=root / "tests" / "data" / "sgd_chat.jsonl")
    parser.add_argument("--base", default=str(embedded_directory()))
    parser.add_argument("--peer", help="a Python with datasets and transformers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
