"""Hyperparameters: what "auto" becomes, and how long a job then is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import JobError

AUTO = "auto"
# "auto" sees every example three times, and so this many or more, but no more than that in all.
TARGET_EPOCHS = 3
MIN_SEEN = 100
MAX_SEEN = 25_000
MAX_AUTO_EPOCHS = 25
MAX_EPOCHS = 50
MAX_BATCH = 256
MAX_RANK = 256
# Above it, no number makes sense (and infinity is no number).
MAX_NUMBER = 1e9
# A batch is this share of the examples.
BATCH_SHARE = 0.002
# The LoRA rate that suits a model of the reference width, and how it falls with width.
REFERENCE_RATE = 5e-4
REFERENCE_WIDTH = 2000
WIDTH_EXPONENT = 0.781


@dataclass(frozen=True)
class Hyperparameters:
    """All decided: nothing is "auto" any more."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0


def resolve(requested: Mapping[str, Any], num_examples: int) -> Hyperparameters:
    """Numbers for what was requested; missing, null and "auto" are decided here.

    `num_examples` counts the rows of the training file. Raises JobError, whose param names the
    hyperparameter, for an unknown name or a value out of its range.
    """
    for name, value in requested.items():
        if name not in RULES:
            raise _refused(name, f"is not known; there are {', '.join(RULES)}")
        wanted, holds = RULES[name]
        if value not in (None, AUTO) and not (_is_number(value) and holds(value)):
            raise _refused(name, f"is {value!r:.40}; it must be {wanted} or 'auto'")
    given = {name: value for name, value in requested.items() if value not in (None, AUTO)}
    decided = {
        "n_epochs": auto_epochs(num_examples),
        "batch_size": auto_batch_size(num_examples),
        "learning_rate_multiplier": 1.0,
    }
    return Hyperparameters(**(decided | given))


def auto_epochs(num_examples: int) -> int:
    """The published rule: 3, more for a small file, fewer for a large one."""
    seen = TARGET_EPOCHS * num_examples
    if seen < MIN_SEEN:
        return min(MAX_AUTO_EPOCHS, MIN_SEEN // max(1, num_examples))
    if seen > MAX_SEEN:
        return max(1, MAX_SEEN // num_examples)
    return TARGET_EPOCHS


def auto_batch_size(num_examples: int) -> int:
    return min(MAX_BATCH, max(1, round(BATCH_SHARE * num_examples)))


def num_steps(num_examples: int, n_epochs: int, batch_size: int) -> int:
    """Steps of a whole job: the epochs are strung together, only the last step may be short."""
    return math.ceil(num_examples * n_epochs / batch_size)


def learning_rate(hidden_size: int, multiplier: float) -> float:
    """The peak learning rate for LoRA on a base of this width."""
    return REFERENCE_RATE * math.pow(REFERENCE_WIDTH / hidden_size, WIDTH_EXPONENT) * multiplier


def _whole(value: float, low: int, high: int) -> bool:
    return isinstance(value, int) and low <= value <= high


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < MAX_NUMBER


# Name -> (what it must be, whether a number is that).
RULES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "n_epochs": (
        f"a whole number from 1 to {MAX_EPOCHS}",
        lambda value: _whole(value, 1, MAX_EPOCHS),
    ),
    "batch_size": (
        f"a whole number from 1 to {MAX_BATCH}",
        lambda value: _whole(value, 1, MAX_BATCH),
    ),
    "learning_rate_multiplier": ("a number above 0", lambda value: value > 0),
    "lora_rank": (
        f"a whole number from 1 to {MAX_RANK}",
        lambda value: _whole(value, 1, MAX_RANK),
    ),
    "lora_alpha": ("a number above 0", lambda value: value > 0),
    "lora_dropout": ("a number from 0 to below 1", lambda value: 0 <= value < 1),
}


def _refused(name: str, text: str) -> JobError:
    return JobError(
        f"The hyperparameter '{name:.40}' {text}.",
        code="invalid_hyperparameters",
        param=f"hyperparameters.{name:.40}",
    )
