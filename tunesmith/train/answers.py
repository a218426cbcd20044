"""What the model in training answers: samples for people to look at, and the last check of a job.

The samples answer the same few prompts, by the model the job starts from and at each checkpoint
that is offered, a pause's too. That may take a small share of the job's time. Where it would take
more, the earlier checkpoints go without, or all of them, and an event says so; pauses come on top.
"""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import replace

from tunesmith.jobdir.samples import Answer, Prompt, Sample, Samples, read_samples, write_samples
from tunesmith.jobdir.spec import Param
from tunesmith.model.decoder import LowRankUpdate
from tunesmith.model.greedy import greedy
from tunesmith.model.load import CausalModel
from tunesmith.train.batches import Corpus
from tunesmith.train.job import Job
from tunesmith.train.start import Run, load_start
from tunesmith.train.step import Trained

NUM_PROMPTS = 5
MAX_ANSWER_TOKENS = 64
# Of the job's training time, at most; and what any job may take.
SHARE = 0.05
FREE_S = 0.5
# Tokens beyond the length of the answer in the file before the model counts as not stopping.
GRACE_TOKENS = 16
# Sequences that are looked through for a short answer.
NUM_CANDIDATES = 1000

# (row, prompt, answer)
Chosen = tuple[int, list[int], list[int]]


def take_samples(job: Job, run: Run) -> None:
    """Answers by the model as it is now; the first time also by the one that the job started from.

    What was taken before a resume stays. A pause answers where the first epoch that is kept does.
    """
    step, chosen = job.progress.step, choose(run.valid or run.train)
    epoch = run.order.epoch_of(step)
    judged = max(epoch, run.first_kept(job.spec))
    if not job.world.agree(read_samples(job.dir).first_epoch is not None):
        _begin(job, run, judged, chosen)
    lora = run.trained.to(run.model.dtype)
    with run.forward.alone() as has_to_act:
        found = read_samples(job.dir)
        if not has_to_act or found.at(step) or judged < (found.first_epoch or 0):
            return
        answers = _answers(run, run.model, lora, chosen)
        sample = Sample(step, epoch, answers)
        write_samples(job.dir, replace(found, samples=[*found.samples, sample]))
        stopped = sum(answer.stops for answer in answers)
        text = f"Sample answers at step {step}: {stopped} of {len(answers)} end by themselves"
        job.journal.message(f"samples:{step}", text)


def _begin(job: Job, run: Run, epoch: int, chosen: list[Chosen]) -> None:
    """The answers of the start, and from which epoch on the checkpoints answer as well."""
    if not (job.world.is_first or run.plan.sharded):
        return
    began_s = time.monotonic()
    start, lora = load_start(job, run)
    lora = None if lora is None else lora.to(start.model.dtype)
    with start.alone() as has_to_act:
        if not has_to_act:
            return
        sample = Sample(0, 0, _answers(run, start.model, lora, chosen))
    # Every further answering costs about as much.
    taken_s = time.monotonic() - began_s
    budget_s = max(FREE_S, SHARE * run.forecast.seconds)
    num_affordable = max(0, int(budget_s / taken_s) - 1)
    first_epoch = max(epoch, run.plan.n_epochs - num_affordable + 1)
    param: Param = "validation_file" if run.valid else "training_file"
    decode = run.renderer.tokenizer.decode
    prompts = [
        Prompt(param, row + 1, decode(ids, skip_special_tokens=False), run.renderer.decode(answer))
        for row, ids, answer in (chosen if num_affordable else [])
    ]
    samples = Samples(prompts, [sample] if num_affordable else [], first_epoch > epoch, first_epoch)
    write_samples(job.dir, samples)
    if samples.skipped:
        which = f"before epoch {first_epoch}" if num_affordable else "at the checkpoints"
        text = (
            f"No sample answers {which}: each time takes about {taken_s:.1f} s, and together they "
            f"may take {SHARE:.0%} of the training time. The checkpoints can be asked later"
        )
        job.journal.message("samples:skipped", text)


def choose(corpus: Corpus) -> list[Chosen]:
    """The last turn of each of some rows: always the same rows."""
    num = min(NUM_PROMPTS, corpus.num_rows)
    chosen = []
    for row in (place * corpus.num_rows // num for place in range(num)):
        # Of a preference that is the preferred answer.
        ids, weights = corpus.tokens(corpus.sequences([row])[0])
        # A sequence ends with its answer, and nothing teaches its first token.
        start = int((weights == 0).nonzero()[-1]) + 1
        chosen.append((row, ids[:start].tolist(), ids[start:].tolist()))
    return chosen


def report_answer(job: Job, run: Run) -> None:
    """Says whether the tuned model answers a training prompt and stops."""
    lora, stop_ids = run.trained.to(run.model.dtype), run.renderer.stop_ids
    with run.forward.alone() as has_to_act:
        if not has_to_act:
            return
        answer = short_answer(run.model, lora, run.train, stop_ids)
    if answer[-1] in stop_ids:
        text = f"answers a training prompt and stops ({len(answer)} tokens)"
        job.journal.message("smoke", f"Smoke test: the tuned model {text}")
        return
    text = (
        f"Smoke test: the tuned model did not end its answer to a training prompt within "
        f"{len(answer)} tokens. Add epochs or examples; if the loss rose, lower the learning rate."
    )
    job.journal.message("smoke", text, "warn")


def short_answer(
    model: CausalModel, lora: Trained, corpus: Corpus, stop_ids: Set[int]
) -> list[int]:
    """The most likely answer to the prompt whose answer in the file is the shortest."""
    prompt, num_expected = shortest(corpus)
    limit = min(num_expected + GRACE_TOKENS, max(MAX_ANSWER_TOKENS, num_expected))
    return greedy(model, lora, [prompt], limit, stop_ids)[0]


def shortest(corpus: Corpus) -> tuple[list[int], int]:
    """The prompt before the shortest first answer found, and that answer's length."""
    found = []
    for sequence in range(min(corpus.num_sequences, NUM_CANDIDATES)):
        supervised = [*(corpus.tokens(sequence)[1] > 0).tolist(), False]
        start = supervised.index(True)
        found.append((supervised.index(False, start) - start, sequence, start))
    length, sequence, start = min(found)
    return corpus.tokens(sequence)[0][:start].tolist(), length


def _answers(
    run: Run, model: CausalModel, lora: LowRankUpdate | None, chosen: list[Chosen]
) -> list[Answer]:
    stop_ids = run.renderer.stop_ids
    prompts = [prompt for _, prompt, _ in chosen]
    found = greedy(model, lora, prompts, MAX_ANSWER_TOKENS, stop_ids)
    return [
        Answer(run.renderer.decode(ids), len(ids), bool(ids) and ids[-1] in stop_ids)
        for ids in found
    ]
