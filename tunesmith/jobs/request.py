"""What may be asked of a new job; everything that can be known without reading the files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data import estimate
from tunesmith.data.estimate import AUTO, Method, shown
from tunesmith.errors import BadRequest
from tunesmith.jobs.names import MAX_SUFFIX

MAX_SEED = 2**31 - 1
MAX_NAME = 256
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512
MAX_INTEGRATIONS = 5
MAX_INTEGRATION_CHARS = 4096

# Always shown, as the published job object does.
PUBLIC_HYPERPARAMETERS: dict[Method, tuple[str, ...]] = {
    "supervised": ("n_epochs", "batch_size", "learning_rate_multiplier"),
    "dpo": ("beta", "n_epochs", "batch_size", "learning_rate_multiplier"),
}


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
    """Where the metrics go besides (jobs/tracking.py)."""


def check(request: NewJob) -> dict[str, Any]:
    """The hyperparameters asked for, merged from both places. Raises BadRequest."""
    for name in ("model", "training_file", "validation_file"):
        if len(getattr(request, name) or "") > MAX_NAME:
            raise BadRequest(f"'{name}' is longer than {MAX_NAME} characters.", param=name)
    _check_suffix(request.suffix)
    _check_seed(request.seed)
    _check_metadata(request.metadata)
    _check_integrations(request.integrations)
    method = method_of(request.method)
    newer = _method_hyperparameters(method, request.method)
    return _merge(request.hyperparameters, newer, method)


def method_of(method: dict[str, Any] | None) -> Method:
    """The method asked for. Raises BadRequest."""
    kind = "supervised" if method is None else method.get("type", "supervised")
    for known in estimate.METHODS:
        if kind == known:
            return known
    if kind == "reinforcement":
        raise BadRequest(
            "The method 'reinforcement' is not supported yet by this server. Use 'supervised' or "
            "'dpo'.",
            param="method",
        )
    raise BadRequest(
        f"'{kind}' is not one of ['supervised', 'dpo', 'reinforcement'] - 'method.type'",
        param="method.type",
    )


def _method_hyperparameters(kind: Method, method: dict[str, Any] | None) -> dict[str, Any]:
    body = (method or {}).get(kind) or {}
    if not isinstance(body, dict):
        raise BadRequest(f"'method.{kind}' must be an object.", param=f"method.{kind}")
    given = body.get("hyperparameters") or {}
    if not isinstance(given, dict):
        raise BadRequest(
            f"'method.{kind}.hyperparameters' must be an object.",
            param=f"method.{kind}.hyperparameters",
        )
    return given


def _merge(older: dict[str, Any], newer: dict[str, Any], method: Method) -> dict[str, Any]:
    for name in older.keys() & newer.keys():
        two = {shown(value) for value in (older[name], newer[name]) if value is not None}
        if len(two - {repr(AUTO)}) > 1:
            raise BadRequest(
                f"'{name}' is given twice with different values: {shown(older[name])} in "
                f"'hyperparameters' and {shown(newer[name])} in 'method'. Give it once.",
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
        problem = estimate.fault(name, value, method)
        if problem is not None:
            raise BadRequest(
                f"The hyperparameter '{name:.40}' {problem}.", param=f"hyperparameters.{name:.40}"
            )
    _check_together(merged)
    return merged


def _check_together(given: dict[str, Any]) -> None:
    """What only makes sense with an adapter is not for full fine-tuning."""
    lora = [name for name, value in given.items() if name.startswith("lora_") and value != AUTO]
    if given.get("finetuning_type") == "full" and lora:
        raise BadRequest(
            f"'{lora[0]}' shapes an adapter, and full fine-tuning makes none. Leave it out, or use "
            "the finetuning_type 'lora'.",
            param=f"hyperparameters.{lora[0]}",
        )


def _check_suffix(suffix: str | None) -> None:
    if suffix is None:
        return
    if not isinstance(suffix, str) or not 1 <= len(suffix) <= MAX_SUFFIX:
        raise BadRequest(
            f"Invalid 'suffix': it must be a text of 1 to {MAX_SUFFIX} characters.",
            param="suffix",
        )


def _check_seed(seed: int | None) -> None:
    if seed is not None and not (type(seed) is int and 0 <= seed <= MAX_SEED):
        raise BadRequest(
            f"Invalid 'seed': {shown(seed)}. It must be a whole number from 0 to {MAX_SEED}.",
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
