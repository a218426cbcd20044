"""All that the data tools do with a file, done to one file in one process.

A documented error is an answer; anything else that is raised, and more than linear time, is not.
"""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.data import strict_json
from tunesmith.data.check import read_examples
from tunesmith.data.codes import CODES
from tunesmith.data.convert import READABLE, convert
from tunesmith.data.forecast import forecast
from tunesmith.data.formats import read_rows
from tunesmith.data.raw import read_raw
from tunesmith.data.render import Renderer
from tunesmith.data.repair import DEFAULT, REPAIRS, Repaired, repair
from tunesmith.data.report import report
from tunesmith.data.report_page import Request, make
from tunesmith.data.rows import as_row, file_kind, read_any
from tunesmith.data.sarif import to_sarif
from tunesmith.data.sequences import measure, sequences
from tunesmith.data.shapes import Options
from tunesmith.data.show import spans, tokens
from tunesmith.data.split import split
from tunesmith.data.stats import Stats, histogram
from tunesmith.errors import DataError, TunesmithError

METHODS = ("supervised", "dpo", "reinforcement", "evals", None)
MAX_TOKENS = 256
# Of one step's processor time: a beginning, and a bound for each byte.
START_S, PER_BYTE_S = 0.35, 15e-6

Step = Callable[[Path, random.Random], None]


class TooSlow(AssertionError):
    """A step took more than linear time allows."""


class Surface:
    """The steps, with what they need: a renderer and a directory to write into."""

    def __init__(self, renderer: Renderer, base: Path, work: Path) -> None:
        self._renderer = renderer
        self._base = base
        self._work = work
        self.seconds: dict[str, float] = {}
        """Processor time of each step, over all files."""
        self.steps: dict[str, Step] = {
            "report": self.report,
            "read": self.read,
            "fix": self.fix,
            "convert": self.convert,
            "split": self.split,
            "job": self.job,
            "stats": self.stats,
            "show": self.show,
            "estimate": self.estimate,
            "endpoint": self.endpoint,
        }

    def drive(self, path: Path, rng: random.Random, share: float = 1.0) -> None:
        """Every step on a file; with a `share` below 1, each with that probability."""
        size = path.stat().st_size
        for name, step in self.steps.items():
            if rng.random() >= share and name != "report":
                continue
            took = self.timed(step, path, rng)
            self.seconds[name] = self.seconds.get(name, 0.0) + took
            bound = START_S + PER_BYTE_S * size
            if took > bound:
                # A busy machine is no proof; the same thing twice again is.
                again = min(self.timed(step, path, rng) for _ in range(2))
                if again > bound:
                    raise TooSlow(f"{name}: {again:.2f} s of processor time for {size:,} bytes")

    def timed(self, step: Step, path: Path, rng: random.Random) -> float:
        started = time.process_time()
        try:
            step(path, rng)
        except TunesmithError as error:
            assert str(error).strip(), "an error that says nothing"
            str(error).encode()
        return time.process_time() - started

    def report(self, path: Path, rng: random.Random) -> None:
        method = rng.choice(METHODS)
        renderer = self._renderer if rng.random() < 0.5 else None
        valid = path if rng.random() < 0.2 else None
        found = report(
            path,
            valid=valid,
            method=method,
            renderer=renderer,
            max_tokens=MAX_TOKENS,
            encodings=rng.choice((None, (), ("o200k_base",))),
        )
        json.dumps(found.to_json()).encode()
        json.dumps(to_sarif(found)).encode()
        for each in found.all_findings:
            assert each.code in CODES
            assert len(each.rows) == len(each.lines)
            assert list(each.rows) == sorted(set(each.rows)), each.code
            assert not each.rows or each.rows[0] >= 1
        # Pairs are trained on by a base without a chat template only.
        is_chat = renderer is not None or found.kind != "completions"
        if method == "supervised" and is_chat and _refuses(path):
            assert any(each.severity == "error" for each in found.all_findings), "not refused"

    def read(self, path: Path, rng: random.Random) -> None:
        """Whichever way a row was read, it is what the careful parser says."""
        for raw in read_raw(path):
            if raw.problem is None:
                twice: list[str] = []
                value = strict_json.loads(raw.raw.decode(), duplicates=twice)
                assert repr(raw.value) == repr(value), f"row {raw.number} reads otherwise"
                assert raw.duplicates == tuple(twice), f"row {raw.number} has other duplicates"

    def fix(self, path: Path, rng: random.Random) -> None:
        codes = DEFAULT if rng.random() < 0.6 else frozenset(rng.sample(list(REPAIRS), 4))
        once, result = io.BytesIO(), Repaired()
        for change in repair(path, once, codes, result):
            assert change.codes
        assert once.getvalue().count(b"\n") >= result.num_rows
        fixed = self._work / "fixed.jsonl"
        fixed.write_bytes(once.getvalue())
        twice = io.BytesIO()
        list(repair(fixed, twice, codes))
        assert twice.getvalue() == once.getvalue(), "a second fix changes something"

    def convert(self, path: Path, rng: random.Random) -> None:
        container: Any = rng.choice(("jsonl", "json", "csv", "tsv"))
        target = self._work / f"converted.{container}"
        target.unlink(missing_ok=True)
        read_as = rng.choice((None, None, *READABLE))
        options = Options("Be kind." if rng.random() < 0.2 else None, {}, rng.random() < 0.2)
        try:
            convert(
                path, target, container, read_as=read_as, options=options, skip=rng.random() < 0.6
            )
        except TunesmithError:
            assert not target.exists(), "a conversion that failed left a file"
            raise

    def split(self, path: Path, rng: random.Random) -> None:
        sides = self._work / "train.jsonl", self._work / "valid.jsonl"
        done = split(path, *sides, ratio=rng.choice((0.1, 0.5, 0.9)), seed=rng.randrange(9))
        counts = [sum(1 for _ in read_raw(each)) for each in sides]
        assert counts == [done.num_train, done.num_valid]

    def job(self, path: Path, rng: random.Random) -> None:
        for example in read_examples(path, "file-1", "training_file", self._renderer, MAX_TOKENS):
            assert len(example.ids) == len(example.weights) <= MAX_TOKENS

    def stats(self, path: Path, rng: random.Random) -> None:
        found = Stats()
        for row in read_any(path, rng.choice(METHODS)):
            size = measure(row, self._renderer, MAX_TOKENS)
            found.add(row, size.num_tokens if size.longest else None, size.num_trained)
        for values in (found.tokens, found.turns, found.answer_chars):
            assert sum(each.count for each in histogram(values)) == len(values)
        assert found.labels is None or found.labels

    def show(self, path: Path, rng: random.Random) -> None:
        kind = file_kind(path, rng.choice(METHODS))
        for raw in read_raw(path):
            if rng.random() < 0.5:
                continue
            for each in sequences(self._renderer, as_row(path, raw, kind)):
                shown = spans(tokens(self._renderer, each.example, MAX_TOKENS))
                ids = [id_ for span in shown for token in span.tokens for id_ in token.ids]
                assert ids == each.example.ids
            return

    def estimate(self, path: Path, rng: random.Random) -> None:
        wanted = {"n_epochs": rng.choice(("auto", 3))}
        forecast(path, self._renderer, MAX_TOKENS, wanted, method=rng.choice(METHODS))

    def endpoint(self, path: Path, rng: random.Random) -> None:
        json.dumps(make(Request(str(path), method=rng.choice(METHODS), limit=3))).encode()


def _refuses(path: Path) -> bool:
    try:
        for _ in read_rows(path):
            pass
    except DataError:
        return True
    return False
