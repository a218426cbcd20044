"""Our engine, scheduler included, as one that takes turns (`bench/engine_peers.py`)."""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from tunesmith.model.threads import WAITING

os.environ.update(WAITING)

from bench.peers.turns import take_turns
from tests.engine_harness import greedy, running_engine
from tunesmith.model.adapter_files import content_hash
from tunesmith.serve.protocol import AdapterRef, Done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adapters", type=Path, nargs="*", default=[])
    parser.add_argument("--int8", action="store_true")
    options = parser.parse_args()
    refs = [AdapterRef(content_hash(path), path) for path in options.adapters]
    with running_engine(num_threads=options.threads, int8=options.int8) as harness:

        def work(
            prompts: Sequence[Sequence[int]], num_tokens: int, num_adapters: int
        ) -> list[list[int]]:
            # All at once, as the others get them: the engine waits until the last has come.
            gate = threading.Event()
            harness.engine.stats(lambda _: gate.wait())
            used = refs[:num_adapters] or [None]
            tickets = [
                harness.submit(
                    greedy(options.model, ids, num_tokens, adapter=used[place % len(used)])
                )
                for place, ids in enumerate(prompts)
            ]
            gate.set()
            answers = harness.wait(*tickets)
            assert all(isinstance(each.end, Done) for each in answers), answers[0].end
            return [each.ids[0] for each in answers]

        take_turns(work)


if __name__ == "__main__":
    main()
