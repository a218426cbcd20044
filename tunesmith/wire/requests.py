"""What every request body has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints


class RequestBody(BaseModel):
    """Types are not guessed ("3" is no number); fields of other versions of the API pass."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def _at_most_16_pairs(value: dict[str, str]) -> dict[str, str]:
    if len(value) > 16:
        raise ValueError(f"{len(value)} pairs where at most 16 are allowed")
    return value


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    AfterValidator(_at_most_16_pairs),
]
