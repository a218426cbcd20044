"""What the validation loss says about the epochs: told to the user, never acted on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tunesmith.jobdir.events import all_events
from tunesmith.jobdir.layout import EVENTS_FILE
from tunesmith.jobdir.outcome import CheckpointEntry
from tunesmith.jobdir.row_losses import RowLosses
from tunesmith.train.batches import Order
from tunesmith.train.job import Job

LOSS = "full_valid_loss"
# A difference below this share of the loss is chance.
NOTABLE = 0.01
# Nats that a row's loss may rise by while the model learns others.
WORSE = 0.1
# Epochs in a row whose loss rises before it is said.
PATIENCE = 2


def epoch_losses(job_dir: Path) -> dict[int, float]:
    """Step -> loss on the whole validation file, of every epoch's end so far."""
    found = {
        event.data["step"]: event.data[LOSS]
        for event in all_events(job_dir / EVENTS_FILE)
        if event.type == "metrics" and LOSS in event.data
    }
    return dict(sorted(found.items()))


def rises(recent: Sequence[float]) -> bool:
    """Whether the last epochs each ended notably worse than the one before."""
    worse = [later > earlier * (1 + NOTABLE) for earlier, later in pairwise(recent)]
    return all(worse) and len(worse) == PATIENCE


def tell_if_rising(job: Job, epoch: int) -> None:
    """While the job runs."""
    recent = list(epoch_losses(job.dir).values())[-PATIENCE - 1 :]
    if not rises(recent):
        return
    shown = ", ".join(f"{loss:.3f}" for loss in recent)
    text = (
        f"The validation loss has risen for {PATIENCE} epochs ({shown}): the model learns the "
        "training file by heart. Pausing keeps what there is; fewer epochs may do as well."
    )
    job.journal.message(f"warn:rising:{epoch}", text, "warn")


def tell_best(job: Job, order: Order, checkpoints: list[CheckpointEntry]) -> None:
    """After the job: which checkpoint has the lowest loss, where it is not the last one."""
    losses = epoch_losses(job.dir)
    if not losses or not checkpoints:
        return
    last = checkpoints[-1].step
    best = min(losses, key=lambda step: losses[step])
    if last not in losses or losses[last] <= losses[best] * (1 + NOTABLE):
        return
    epoch = order.epoch_ended_by(best)
    text = (
        f"The validation loss was lowest after epoch {epoch} (step {best}: {losses[best]:.3f}); "
        f"the final model has {losses[last]:.3f}."
    )
    if any(entry.step == best for entry in checkpoints):
        text += f" The checkpoint of step {best} may answer better: compare the two."
    else:
        text += f" Its checkpoint was not kept: for it, tune again with n_epochs {epoch}."
    job.journal.message("best", text, "warn")


def tell_if_unlearned(job: Job, order: Order, losses: RowLosses) -> None:
    """After the job: whether the rows of the first step, which were looked at before anything was
    learned, ended worse than the job found them."""
    first, last = losses.means(order.rows(1))
    if last > first + WORSE:
        text = (
            "Training has made the model worse on the training file: the rows of the first step "
            f"had the loss {first:.3f} before it, and {last:.3f} in the last epoch. Lower "
            "learning_rate_multiplier, for example to a tenth."
        )
        job.journal.message("unlearned", text, "warn")
