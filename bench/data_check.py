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


def measure(python: str, code: str, path: Path, base: str, cache: str) -> tuple[float, float, str]:
    """Seconds, the most memory of it and its children together (MB), and what it printed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [python, "-c", code, str(path), str(base), cache], stdout=subprocess.PIPE, text=True
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, resident_mb(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"it ended with {process.returncode}")
    return seconds, peak, process.stdout.read().strip()


def resident_mb(pid: int) -> float:
    """Proportional memory of a process and its children."""
    total = 0.0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, StopIteration):
        return total / 1024
    return total / 1024 + sum(resident_mb(int(child)) for child in children)


def show(name: str, result: tuple[float, float, str], num_bytes: int) -> None:
    seconds, peak, output = result
    print(
        f"{name}: {num_bytes / 1e6 / seconds:.1f} MB/s ({seconds:.1f} s), "
        f"peak {peak:.0f} MB; rows and tokens: {output}"
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
