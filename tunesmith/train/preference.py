"""What preferences are measured against: the model that the job starts from, asked once.

Its log-probabilities of all answers are kept in the job's directory with the hash of what they
depend on and of themselves, and taken up again by a resume, also half done:

    reference-train.safetensors  reference-valid.safetensors
        "logp": float64, one for each sequence so far; metadata: "key", "sha256"
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tunesmith.group.watch import Request
from tunesmith.jobdir.files import write_atomic
from tunesmith.model.adapter_files import content_hash
from tunesmith.model.decoder import LowRankUpdate
from tunesmith.train.batches import Corpus
from tunesmith.train.job import Job
from tunesmith.train.objective import Preference, Sums, Supervised, longest_unit
from tunesmith.train.shortage import within_memory
from tunesmith.train.start import Run, load_start
from tunesmith.train.step import Forward, sums

# Rows between two looks at the clock and at what is asked of the job.
BLOCK_ROWS = 32


def aim(job: Job, run: Run) -> Request | None:
    """Settles what the run lowers; for preferences it asks the reference first.

    Returns what was asked of the job meanwhile, if anything: then it has no aim yet.
    """
    if run.plan.beta is None:
        run.objective = Supervised(run.train)
        run.valid_objective = Supervised(run.valid or run.train)
        return None
    forward, lora = load_start(job, run)
    found = []
    for name, corpus in (("train", run.train), ("valid", run.valid or Corpus([]))):
        reference = Reference(job, run, forward, name, corpus)
        if asked := reference.ask(lora):
            return asked
        found.append(Preference(corpus, reference.logp_S, run.plan.beta))
    run.objective, run.valid_objective = found
    return None


class Reference:
    """The log-probabilities of one corpus's sequences."""

    def __init__(self, job: Job, run: Run, forward: Forward, name: str, corpus: Corpus) -> None:
        self._job = job
        self._run = run
        self._forward = forward
        self._name = name
        self._corpus = corpus
        self._path = job.dir / f"reference-{name}.safetensors"
        self._key = _key(job, run, corpus)
        own = _read(self._path, self._key)
        # What the first process has, all have: the file is being written by it alone.
        self.logp_S = job.world.same(own)

    def ask(self, lora: LowRankUpdate | None) -> Request | None:
        """Goes through the rows that are missing; returns early when something is asked."""
        num_rows = self._corpus.num_rows
        first = len(self.logp_S) // 2
        if first == num_rows:
            return None
        started_s = saved_s = time.monotonic()
        for start in range(first, num_rows, BLOCK_ROWS):
            if asked := self._job.watch.request():
                self._save()
                return asked
            rows = range(start, min(start + BLOCK_ROWS, num_rows))
            self.logp_S = torch.cat([self.logp_S, self._logp(lora, rows)])
            if time.monotonic() - saved_s >= self._job.spec.save_every_s:
                self._save()
                saved_s = time.monotonic()
        self._save()
        taken_s = time.monotonic() - started_s
        text = (
            f"The model that the job starts from has rated the {num_rows} pairs of the "
            f"{'training' if self._name == 'train' else 'validation'} file ({taken_s:.1f} s)"
        )
        self._job.journal.message(f"reference:{self._name}", text)
        return None

    def _logp(self, lora: LowRankUpdate | None, rows: Sequence[int]) -> Tensor:
        # Pairs are rated together as they are trained, so that the first margins are nearly 0.
        pairs = Preference(self._corpus, torch.empty(0), 1.0)

        def forwards(max_tokens: int) -> Sums:
            return sums(self._forward, lora, pairs, rows, max_tokens)

        found = within_memory(self._job, self._run, longest_unit(pairs, rows), forwards)
        logp = [-found.loss[sequence] for sequence in self._corpus.sequences(rows)]
        return torch.tensor(logp, dtype=torch.float64)

    def _save(self) -> None:
        if not self._job.world.is_first:
            return
        metadata = {"key": self._key, "sha256": _sha256(self.logp_S)}
        write_atomic(self._path, save({"logp": self.logp_S}, metadata))


def _key(job: Job, run: Run, corpus: Corpus) -> str:
    """The hash of all that the numbers depend on."""
    start = job.spec.start_adapter
    digest = hashlib.sha256(corpus.digest().encode())
    for part in (
        run.plan.base_fingerprint,
        run.plan.dtype,
        run.plan.device,
        "" if start is None else content_hash(start),
    ):
        digest.update(f"/{part}".encode())
    return digest.hexdigest()


def _read(path: Path, key: str) -> Tensor:
    """What is there and in order; whatever is not is asked again."""
    nothing = torch.empty(0, dtype=torch.float64)
    try:
        with safe_open(path, "pt") as file:
            metadata, logp_S = file.metadata() or {}, file.get_tensor("logp")
    except (OSError, SafetensorError):
        return nothing
    if metadata.get("key") != key or metadata.get("sha256") != _sha256(logp_S):
        return nothing
    return torch.as_tensor(logp_S)


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()
