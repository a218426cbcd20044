"""What the shipped data is for: the request of a job to begin with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tunesmith.wire.files import FileObject


class Demo(BaseModel):
    object: Literal["tunesmith.demo"] = "tunesmith.demo"
    training_file: FileObject
    validation_file: FileObject
    job: dict[str, Any]
    """The body of POST /v1/fine_tuning/jobs."""
