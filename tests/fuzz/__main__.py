"""A hundred thousand damaged files through all data tools: `python -m tests.fuzz`.

Prints the seed; a file that fails is saved with its seed in its name, and makes the exit code 1.
The processor time of a step is held against its bytes, the process's memory against a bound.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.mutations import mutated
from tests.fuzz.surface import Surface
from tunesmith.bases import embedded_directory
from tunesmith.data.render import Renderer

MAX_MEMORY_BYTES = 4 << 30
MAX_GROWTH_MB = 600
MAX_FAILURES = 20
TOLD_EVERY = 5000


def main() -> int:
    arguments = _arguments()
    seed = random.SystemRandom().randrange(1 << 40) if arguments.seed is None else arguments.seed
    print(f"seed {seed}: again with --seed {seed}", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    base = embedded_directory()
    failures = num_bytes = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        surface = Surface(Renderer.load(base), base, Path(work))
        before = peak_mb()
        for number in range(seed, seed + arguments.files):
            content = mutated(number)
            num_bytes += len(content)
            path = Path(work) / "file.jsonl"
            path.write_bytes(content)
            try:
                surface.drive(path, random.Random(number), arguments.share)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a panic of a library in Rust is no Exception
                failures += 1
                saved = arguments.keep / f"failed-{number}.jsonl"
                arguments.keep.mkdir(parents=True, exist_ok=True)
                saved.write_bytes(content)
                print(f"{saved}: {traceback.format_exc(limit=-6)}", flush=True)
                if failures == MAX_FAILURES:
                    break
            done = number - seed + 1
            if done % TOLD_EVERY == 0:
                tell(done, num_bytes, time.monotonic() - started, surface, peak_mb() - before)
        growth = peak_mb() - before
    tell(done, num_bytes, time.monotonic() - started, surface, growth)
    if growth > MAX_GROWTH_MB:
        print(f"memory grew by {growth} MB; at most {MAX_GROWTH_MB} MB are allowed")
    print(f"{failures} failures")
    return int(failures > 0 or growth > MAX_GROWTH_MB)


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def tell(done: int, num_bytes: int, took_s: float, surface: Surface, growth: int) -> None:
    steps = ", ".join(f"{name} {took:.0f}" for name, took in surface.seconds.items())
    print(
        f"{done:,} files, {num_bytes / 1e6:.0f} MB, {took_s:.0f} s, memory +{growth} MB; "
        f"processor seconds: {steps}",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--share", type=float, default=0.5, help="of the steps, on each file")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--work", help="directory for the files, best in memory")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
