"""Hyperparameters: what "auto" becomes, and how long a job then is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.errors import JobError

Method = Literal["supervised", "dpo"]
METHODS: tuple[Method, ...] = ("supervised", "dpo")
FinetuningType = Literal["lora", "dora", "full"]

AUTO = "auto"
# "auto" sees every example three times, and so this many or more, but no more than that in all.
TARGET_EPOCHS = 3
MIN_SEEN = 100
MAX_SEEN = 25_000
MAX_AUTO_EPOCHS = 25
MAX_EPOCHS = 50
MAX_BATCH = 256
MAX_RANK = 256
MAX_BETA = 2
MAX_TARGETS = 64
MAX_TARGET_CHARS = 64
# Above it, no number makes sense (and infinity is no number).
MAX_NUMBER = 1e9
# A batch is this share of the examples.
BATCH_SHARE = 0.002
# The LoRA rate that suits a model of the reference width, and how it falls with width.
REFERENCE_RATE = 5e-4
REFERENCE_WIDTH = 2000
WIDTH_EXPONENT = 0.781
# What other ways to train take of it; docs/training.md says where each comes from.
TYPE_SHARES: Mapping[str, float] = {"lora": 1.0, "dora": 1.0, "full": 0.1}
METHOD_SHARES: Mapping[str, float] = {"supervised": 1.0, "dpo": 0.05}
AUTO_BETA = 0.1
# Pairs a step at least: the gradient of one pair is mostly noise.
MIN_PAIRS = 8
# The scale of an update at rank 16 is 2 by either rule.
AUTO_ALPHA = 32.0
AUTO_RSLORA_ALPHA = 8.0


@dataclass(frozen=True)
class Hyperparameters:
    """All decided: nothing is "auto" any more."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None = None
    """Of DPO; None for other methods."""
    finetuning_type: FinetuningType = "lora"
    lora_rank: int = 16
    lora_alpha: float = AUTO_ALPHA
    lora_dropout: float = 0.0
    lora_targets: str | list[str] = "all"
    """"all", "attention", "mlp", or the last parts of the linears' names."""
    lora_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""


def resolve(
    requested: Mapping[str, Any], num_examples: int, method: Method = "supervised"
) -> Hyperparameters:
    """Numbers for what was requested; missing, null and "auto" are decided here.

    `num_examples` counts the rows of the training file. Raises JobError, whose param names the
    hyperparameter, for an unknown name or a value out of its range.
    """
    for name, value in requested.items():
        problem = fault(name, value, method)
        if problem is not None:
            raise JobError(
                f"The hyperparameter '{name:.40}' {problem}.",
                code="invalid_hyperparameters",
                param=f"hyperparameters.{name:.40}",
            )
    given = {name: value for name, value in requested.items() if value not in (None, AUTO)}
    decided = {
        "n_epochs": auto_epochs(num_examples),
        "batch_size": auto_batch_size(num_examples, method),
        "learning_rate_multiplier": 1.0,
        "lora_alpha": AUTO_RSLORA_ALPHA if given.get("lora_rslora") else AUTO_ALPHA,
        "beta": AUTO_BETA if method == "dpo" else None,
    }
    return Hyperparameters(**(decided | given))


def fault(name: str, value: Any, method: Method) -> str | None:
    """What is wrong with a hyperparameter of a job, as the end of a sentence about it."""
    rules = {key: rule for key, rule in RULES.items() if method in rule.methods}
    if name not in rules:
        return f"is not known for the method '{method}'; there are {', '.join(rules)}"
    rule = rules[name]
    if value in (None, AUTO) or rule.holds(value):
        return None
    return f"is {shown(value)}; it must be 'auto' or {rule.wanted}"


def shown(value: Any) -> str:
    """A value of a request in a message."""
    # Turning an integer of thousands of digits into text is refused by Python itself.
    if type(value) is int and abs(value) > 10**20:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


def auto_epochs(num_examples: int) -> int:
    """The published rule: 3, more for a small file, fewer for a large one."""
    seen = TARGET_EPOCHS * num_examples
    if seen < MIN_SEEN:
        return min(MAX_AUTO_EPOCHS, MIN_SEEN // max(1, num_examples))
    if seen > MAX_SEEN:
        return max(1, MAX_SEEN // num_examples)
    return TARGET_EPOCHS


def auto_batch_size(num_examples: int, method: Method = "supervised") -> int:
    return min(
        MAX_BATCH, max(MIN_PAIRS if method == "dpo" else 1, round(BATCH_SHARE * num_examples))
    )


def num_steps(num_examples: int, n_epochs: int, batch_size: int) -> int:
    """Steps of a whole job: the epochs are strung together, only the last step may be short."""
    return math.ceil(num_examples * n_epochs / batch_size)


def duration(seconds: float) -> str:
    """For example "3 s", "4 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def learning_rate(
    hidden_size: int,
    multiplier: float,
    method: Method = "supervised",
    finetuning_type: FinetuningType = "lora",
) -> float:
    """The peak learning rate on a base of this width."""
    rate = REFERENCE_RATE * math.pow(REFERENCE_WIDTH / hidden_size, WIDTH_EXPONENT)
    return rate * TYPE_SHARES[finetuning_type] * METHOD_SHARES[method] * multiplier


@dataclass(frozen=True)
class Rule:
    wanted: str
    """What a value must be, in words."""
    holds: Callable[[Any], bool]
    methods: tuple[Method, ...] = METHODS


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(holds: Callable[[float], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and abs(value) < MAX_NUMBER and holds(value)


def _are_targets(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("all", "attention", "mlp")
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_TARGETS
        and all(isinstance(name, str) and 1 <= len(name) <= MAX_TARGET_CHARS for name in value)
    )


# The one table of hyperparameters: a request is held to it, a job's spec and the command line.
RULES: Mapping[str, Rule] = {
    "n_epochs": Rule(f"a whole number from 1 to {MAX_EPOCHS}", _whole(1, MAX_EPOCHS)),
    "batch_size": Rule(f"a whole number from 1 to {MAX_BATCH}", _whole(1, MAX_BATCH)),
    "learning_rate_multiplier": Rule("a number above 0", _number(lambda value: value > 0)),
    "beta": Rule(
        f"a number above 0, at most {MAX_BETA}",
        _number(lambda value: 0 < value <= MAX_BETA),
        methods=("dpo",),
    ),
    "finetuning_type": Rule(
        "'lora', 'dora' or 'full'", lambda value: value in ("lora", "dora", "full")
    ),
    "lora_rank": Rule(f"a whole number from 1 to {MAX_RANK}", _whole(1, MAX_RANK)),
    "lora_alpha": Rule("a number above 0", _number(lambda value: value > 0)),
    "lora_dropout": Rule("a number from 0 to below 1", _number(lambda value: 0 <= value < 1)),
    "lora_targets": Rule(
        "'all', 'attention', 'mlp' or a list of linear layers such as ['q_proj', 'v_proj']",
        _are_targets,
    ),
    "lora_rslora": Rule("true or false", lambda value: isinstance(value, bool)),
}
