"""The validate phase: what the files hold, what "auto" becomes, how long the job will be.

Needs no torch. Never raises for what the user can have got wrong: that is its answer.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from tunesmith import bases
from tunesmith.data import estimate
from tunesmith.data.check import Dataset
from tunesmith.data.formats import Limits
from tunesmith.data.render import Renderer
from tunesmith.data.report import report, warnings
from tunesmith.errors import AdapterError, BaseModelError, DataError, JobError
from tunesmith.ids import SystemClock
from tunesmith.jobdir.outcome import Failure, Validation
from tunesmith.jobdir.rows import rendered
from tunesmith.jobdir.spec import Param, Spec
from tunesmith.model.adapter_files import continued
from tunesmith.trainer.screening import screened


def validate(spec: Spec, job_dir: Path) -> Validation:
    try:
        return replace(_validate(spec), screened=screened(spec, job_dir))
    except (DataError, JobError, BaseModelError, AdapterError) as error:
        failure = Failure.of(error)
    except MemoryError:
        message = "Checking the files takes more memory than a check may have. Split them."
        failure = Failure("out_of_memory", message, "training_file")
    return Validation(fence=spec.fence, ok=False, error=failure)


def _validate(spec: Spec) -> Validation:
    base = bases.describe(spec.base.path, spec.base.name, SystemClock())
    renderer = Renderer.load(spec.base.path)
    max_tokens = min(spec.max_tokens or base.context_length, base.context_length)

    def check(param: Param) -> Dataset:
        dataset = Dataset()
        for _ in rendered(spec, param, renderer, max_tokens, dataset):
            pass
        return dataset

    train, valid = check("training_file"), check("validation_file")
    requested = spec.hyperparameters
    if spec.start_adapter is not None:
        requested = continued(requested, spec.start_adapter)
    hyper = estimate.resolve(requested, train.num_examples, spec.method)
    return Validation(
        fence=spec.fence,
        ok=True,
        num_examples=train.num_examples,
        num_tokens=train.num_tokens,
        num_valid_examples=valid.num_examples,
        hyperparameters=asdict(hyper),
        total_steps=estimate.num_steps(train.num_examples, hyper.n_epochs, hyper.batch_size),
        warnings=[
            *train.warnings,
            *(f"Validation file: {text}" for text in valid.warnings),
            *_data_warnings(spec),
        ],
    )


def _data_warnings(spec: Spec) -> list[str]:
    """What the checks of the data think of files that are in order."""
    valid = spec.validation_file.path if spec.validation_file else None
    limits = None if spec.max_line_bytes is None else Limits(spec.max_line_bytes)
    found = report(
        spec.training_file.path, valid=valid, method=spec.method, processes=1, limits=limits
    )
    return warnings(found)
