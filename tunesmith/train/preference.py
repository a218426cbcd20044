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
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tunesmith.group.watch import Request
from tunesmith.jobdir.files import write_atomic
from tunesmith.model.adapter_files import content_hash
from tunesmith.train.batches import Corpus
from tunesmith.train.checks import first_lesson
from tunesmith.train.job import Job
from tunesmith.train.objective import Preference, Supervised, untaught
from tunesmith.train.shortage import within_memory
from tunesmith.train.start import Run, Start, load_start
from tunesmith.train.step import sums

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
    run.first_lesson = first_lesson(run.order, run.train)
    start = load_start(job, run)
    found = []
    for name, corpus in (("train", run.train), ("valid", run.valid or Corpus([]))):
        logp_S, asked = reference(job, run, start, name, corpus)
        if asked:
            return asked
        found.append(Preference(corpus, logp_S, run.plan.beta))
    run.objective, run.valid_objective = found
    return None


def reference(
    job: Job, run: Run, start: Start, name: str, corpus: Corpus
) -> tuple[Tensor, Request | None]:
    """The log-probabilities of one corpus's sequences; some are missing where it returns early,
    because something is asked of the job."""
    path, key = job.dir / f"reference-{name}.safetensors", _key(job, run, corpus)
    # What the first process has, all have: the file is being written by it alone.
    logp_S = job.world.same(_read(path, key))
    first, num_rows = len(logp_S) // 2, corpus.num_rows
    started_s = saved_s = time.monotonic()
    for at in range(first, num_rows, BLOCK_ROWS):
        if asked := job.watch.request():
            _write(job, path, key, logp_S)
            return logp_S, asked
        rows = range(at, min(at + BLOCK_ROWS, num_rows))
        logp_S = torch.cat([logp_S, _logp(job, run, start, corpus, rows)])
        if time.monotonic() - saved_s >= job.spec.save_every_s:
            _write(job, path, key, logp_S)
            saved_s = time.monotonic()
    if first < num_rows:
        _write(job, path, key, logp_S)
        taken_s = time.monotonic() - started_s
        text = (
            f"The model that the job starts from has rated the {num_rows} pairs of the "
            f"{'training' if name == 'train' else 'validation'} file ({taken_s:.1f} s)"
        )
        job.journal.message(f"reference:{name}", text)
    return logp_S, None


def _logp(job: Job, run: Run, start: Start, corpus: Corpus, rows: Sequence[int]) -> Tensor:
    # Pairs are rated together as they are trained, so that the first margins are nearly 0.
    pairs = untaught(corpus, run.plan.beta)
    found = within_memory(job, run, pairs, rows, partial(sums, *start, pairs, rows))
    logp = [-found.loss[sequence] for sequence in corpus.sequences(rows)]
    return torch.tensor(logp, dtype=torch.float64)


def _key(job: Job, run: Run, corpus: Corpus) -> str:
    """The hash of all that the numbers depend on."""
    plan, start = run.plan, job.spec.start_adapter
    adapter = "" if start is None else content_hash(start)
    digest = hashlib.sha256(corpus.digest().encode())
    for part in (plan.base_fingerprint, plan.dtype, plan.device, adapter):
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


def _write(job: Job, path: Path, key: str, logp_S: Tensor) -> None:
    if job.world.is_first:
        write_atomic(path, save({"logp": logp_S}, {"key": key, "sha256": _sha256(logp_S)}))


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()
