"""Files as the public API shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from tunesmith.wire.lists import Listed

# What an upload may be for; the outputs of jobs carry "fine-tune-results" on top of these.
UPLOAD_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
RESULTS_PURPOSE = "fine-tune-results"


class FileObject(Listed):
    """A stored file. `expires_at` is left out where there is none: the schema allows no null."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = Field(default=None, exclude_if=lambda value: value is None)
    filename: str
    purpose: str
    # Content is judged by the job that uses it, so a stored file is always "processed".
    status: Literal["processed"] = "processed"


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
