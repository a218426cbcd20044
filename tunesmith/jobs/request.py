"""What may be asked of a new job; everything that can be known without reading the files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import BadRequest
from tunesmith.jobs.names import MAX_SUFFIX

MAX_SEED = 2**31 - 1
MAX_NAME = 256
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
MAX_INTEGRATIONS = 5
MAX_INTEGRATION_CHARS = 4096

AUTO = "auto"
# Always shown, as the published job object does.
PUBLIC_HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")


@dataclass(frozen=True)
class NewJob:
    """The body of a create request, field by field as it came in."""

    model: str
    training_file: str
    validation_file: str | None = None
    method: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """The older place for method.supervised.hyperparameters; many scripts still use it."""
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, str] | None = None
    integrations: list[Any] | None = None
    """Kept and shown; an event says that nothing is delivered to them yet."""


def check(request: NewJob) -> dict[str, Any]:
    """The hyperparameters asked for, merged from both places. Raises BadRequest."""
    for name in ("model", "training_file", "validation_file"):
        if len(getattr(request, name) or "") > MAX_NAME:
            raise BadRequest(f"'{name}' is longer than {MAX_NAME} characters.", param=name)
    _check_suffix(request.suffix)
    _check_seed(request.seed)
    _check_metadata(request.metadata)
    _check_integrations(request.integrations)
    return _merge(request.hyperparameters, _method_hyperparameters(request.method))


def _method_hyperparameters(method: dict[str, Any] | None) -> dict[str, Any]:
    if method is None:
        return {}
    kind = method.get("type", "supervised")
    if kind in ("dpo", "reinforcement"):
        raise BadRequest(
            f"The method '{kind}' is not supported yet by this server. Use 'supervised'.",
            param="method",
        )
    if kind != "supervised":
        raise BadRequest(
            f"'{kind}' is not one of ['supervised', 'dpo', 'reinforcement'] - 'method.type'",
            param="method.type",
        )
    body = method.get("supervised") or {}
    if not isinstance(body, dict):
        raise BadRequest("'method.supervised' must be an object.", param="method.supervised")
    given = body.get("hyperparameters") or {}
    if not isinstance(given, dict):
        raise BadRequest(
            "'method.supervised.hyperparameters' must be an object.",
            param="method.supervised.hyperparameters",
        )
    return given


def _merge(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    for name in older.keys() & newer.keys():
        two = {_shown(value) for value in (older[name], newer[name]) if value is not None}
        if len(two - {repr(AUTO)}) > 1:
            raise BadRequest(
                f"'{name}' is given twice with different values: {_shown(older[name])} in "
                f"'hyperparameters' and {_shown(newer[name])} in 'method'. Give it once.",
                param=f"hyperparameters.{name}",
            )
    merged = {name: value for name, value in older.items() if value is not None}
    # "auto" says nothing, so it does not replace a number of the other place.
    merged |= {
        name: value
        for name, value in newer.items()
        if value is not None and not (value == AUTO and name in merged)
    }
    for name, value in merged.items():
        rule = _RULES.get(name)
        if rule is None:
            raise BadRequest(
                f"Unknown hyperparameter '{name}'. This server knows {', '.join(_RULES)}.",
                param=f"hyperparameters.{name}",
            )
        allowed, accepts = rule
        if value != AUTO and not accepts(value):
            raise BadRequest(
                f"Invalid value for '{name}': {_shown(value)}. It must be 'auto' or {allowed}.",
                param=f"hyperparameters.{name}",
            )
    return merged


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(accepts: Callable[[float], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if type(value) not in (int, float):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        return math.isfinite(number) and accepts(number)

    return check


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "n_epochs": ("a whole number from 1 to 50", _integer(1, 50)),
    "batch_size": ("a whole number from 1 to 256", _integer(1, 256)),
    "learning_rate_multiplier": ("a number above 0", _number(lambda x: x > 0)),
    "lora_rank": ("a whole number from 1 to 256", _integer(1, 256)),
    "lora_alpha": ("a number above 0", _number(lambda x: x > 0)),
    "lora_dropout": ("a number from 0 to below 1", _number(lambda x: 0 <= x < 1)),
}


def _check_suffix(suffix: str | None) -> None:
    if suffix is None:
        return
    if not isinstance(suffix, str) or not 1 <= len(suffix) <= MAX_SUFFIX:
        raise BadRequest(
            f"Invalid 'suffix': it must be a text of 1 to {MAX_SUFFIX} characters.",
            param="suffix",
        )


def _check_seed(seed: int | None) -> None:
    if seed is not None and not _integer(0, MAX_SEED)(seed):
        raise BadRequest(
            f"Invalid 'seed': {_shown(seed)}. It must be a whole number from 0 to {MAX_SEED}.",
            param="seed",
        )


def _check_metadata(metadata: dict[str, str] | None) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > MAX_METADATA_PAIRS:
        raise BadRequest(
            f"Invalid 'metadata': it must be an object of at most {MAX_METADATA_PAIRS} pairs.",
            param="metadata",
        )
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY:
            raise BadRequest(
                f"Invalid 'metadata': a key is longer than {MAX_METADATA_KEY} characters.",
                param="metadata",
            )
        if not isinstance(value, str) or len(value) > MAX_METADATA_VALUE:
            raise BadRequest(
                f"Invalid 'metadata.{key}': it must be a text of at most {MAX_METADATA_VALUE} "
                "characters.",
                param=f"metadata.{key}",
            )


def _check_integrations(integrations: list[Any] | None) -> None:
    if integrations is None:
        return
    if len(integrations) > MAX_INTEGRATIONS:
        raise BadRequest(
            f"Invalid 'integrations': at most {MAX_INTEGRATIONS} may be given.",
            param="integrations",
        )
    for number, given in enumerate(integrations):
        place = f"integrations[{number}]"
        if not isinstance(given, dict) or given.get("type") != "wandb":
            raise BadRequest(
                f"Invalid '{place}.type': only 'wandb' is an integration.", param=f"{place}.type"
            )
        wandb = given.get("wandb")
        if not isinstance(wandb, dict) or not isinstance(wandb.get("project"), str):
            raise BadRequest(
                f"Missing '{place}.wandb.project': the name of a project.",
                param=f"{place}.wandb.project",
            )
        if len(json.dumps(given)) > MAX_INTEGRATION_CHARS:
            raise BadRequest(
                f"Invalid '{place}': longer than {MAX_INTEGRATION_CHARS} characters.", param=place
            )


def _shown(value: Any) -> str:
    # Turning an integer of thousands of digits into text is refused by Python itself.
    if type(value) is int and abs(value) > 10**20:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
