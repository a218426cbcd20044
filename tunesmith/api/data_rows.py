"""/v1/tunesmith/data: single rows of uploaded files, as people and as models see them."""

from __future__ import annotations

from fastapi import APIRouter

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.data import find_base, find_file, work
from tunesmith.api.services import Svc
from tunesmith.data import index, show
from tunesmith.data.raw import read_raw
from tunesmith.data.render import Example, Renderer, RenderError
from tunesmith.data.rows import as_row, file_kind
from tunesmith.data.sequences import Sequence, sequences
from tunesmith.errors import BadRequest, DataError
from tunesmith.wire.data import (
    Index,
    IndexRequest,
    RowAt,
    Rows,
    RowsRequest,
    ShownSequence,
    ShownToken,
    Tokens,
    TokensRequest,
)

router = APIRouter(prefix="/v1/tunesmith/data", route_class=JsonRoute)

# More is not looked at, and would take the page seconds to draw.
MAX_SHOWN_TOKENS = 20_000


@router.post("/index")
def make_index(body: IndexRequest, svc: Svc, caller: CallerDep) -> Index:
    """Where each row is, and its shape; with `text` only of the rows that hold it, with
    `min_length` and `max_length` only of those that are so long."""
    file = find_file(svc, caller.project, body.file)
    base = None
    if body.unit == "tokens":
        if body.base is None:
            raise BadRequest("Counting in tokens needs a 'base'.", param="base")
        base = str(find_base(svc, caller.project, body.base).path)
    elif body.unit is None and (body.min_length or body.max_length is not None):
        raise BadRequest("A length needs a 'unit': characters or tokens.", param="unit")
    request = index.Request(
        str(svc.blobs.path(file.id)), body.text, body.unit, body.min_length, body.max_length, base
    )
    found = work(request, file, file.num_bytes, "list of rows of", "show")
    return Index.model_validate({"file": file.id, **found})


@router.post("/rows")
def read_rows(body: RowsRequest, svc: Svc, caller: CallerDep) -> Rows:
    """The rows at these places of the index, in their order; fewer where they are long."""
    file = find_file(svc, caller.project, body.file)
    found = index.read_at(svc.blobs.path(file.id), body.offsets)
    return Rows(file=file.id, rows=[RowAt.model_validate(row) for row in found])


@router.post("/tokens")
def show_tokens(body: TokensRequest, svc: Svc, caller: CallerDep) -> Tokens:
    """A row as the base sees it: each token, and what training does with it."""
    file = find_file(svc, caller.project, body.file)
    base = find_base(svc, caller.project, body.base)
    path = svc.blobs.path(file.id)
    raw = next(read_raw(path, start=0 if body.offset <= 3 else body.offset), None)
    if raw is None:
        raise BadRequest(f"There is no row at byte {body.offset}.", param="offset")
    renderer, _ = svc.renderers.get(base.fingerprint, base.path)
    try:
        found = sequences(renderer, as_row(path, raw, file_kind(path, body.method)))
    except DataError as error:
        # The row was read by its place: it knows no number.
        message = error.message.replace(" (line 1)", "").replace("Example 1", "This row")
        raise BadRequest(message, code=error.code, param="file") from None
    except RenderError as error:
        raise BadRequest(f"This row {error.text}", code="cannot_render", param="base") from None
    limit = body.max_tokens or base.context_length
    shown, is_cut = _shown(renderer, found, limit)
    return Tokens(file=file.id, base=body.base, max_tokens=limit, is_cut=is_cut, sequences=shown)


def _shown(
    renderer: Renderer, found: list[Sequence], limit: int
) -> tuple[list[ShownSequence], bool]:
    """The sequences, and whether some of their tokens are left out."""
    shown = []
    left = MAX_SHOWN_TOKENS
    for each in found:
        whole = each.example
        part = Example(whole.ids[:left], whole.weights[:left], whole.number)
        left -= len(part.ids)
        weights = whole.weights
        shown.append(
            ShownSequence(
                name=each.name,
                num_tokens=len(whole.ids),
                num_trained=sum(weight > 0 for weight in weights),
                num_beyond=max(0, len(whole.ids) - limit),
                num_beyond_trained=sum(weight > 0 for weight in weights[limit:]),
                tokens=[
                    ShownToken.model_validate(vars(token) | {"ids": list(token.ids)})
                    for token in show.tokens(renderer, part, limit)
                ],
            )
        )
    num_all = sum(len(each.example.ids) for each in found)
    return shown, num_all > MAX_SHOWN_TOKENS
