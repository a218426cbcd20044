"""Moderation as the public API shows it, and the flagged rows of a job."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from tunesmith.moderation.verdict import CATEGORIES, Verdict
from tunesmith.wire.lists import Listed
from tunesmith.wire.requests import RequestBody

MAX_INPUTS = 2048


class ImageUrl(RequestBody):
    url: str


class TextPart(RequestBody):
    type: Literal["text"]
    text: str


class ImagePart(RequestBody):
    type: Literal["image_url"]
    image_url: ImageUrl


class CreateModeration(RequestBody):
    input: str | list[str] | list[TextPart | ImagePart]
    model: str = "omni-moderation-latest"


class ModerationResult(BaseModel):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]
    """Empty for a category of which the moderator can say nothing."""

    @classmethod
    def of(cls, verdict: Verdict) -> ModerationResult:
        return cls(
            flagged=bool(verdict.flagged),
            categories={name: name in verdict.flagged for name in CATEGORIES},
            category_scores={name: verdict.scores.get(name, 0.0) for name in CATEGORIES},
            category_applied_input_types={
                name: ["text"] if name in verdict.scores else [] for name in CATEGORIES
            },
        )


class Moderation(BaseModel):
    id: str
    model: str
    results: list[ModerationResult]


class FlaggedRow(Listed):
    """A row of a job's file with what it is flagged for."""

    object: Literal["tunesmith.flagged_row"] = "tunesmith.flagged_row"
    file: Literal["training_file", "validation_file"]
    row: int
    line: int
    categories: dict[str, float]
    """The score of each; 0.5 is where flagging begins."""
