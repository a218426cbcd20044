"""/tokenize, /detokenize, /tokenizer_info: what evaluation tools ask servers of open models for.

The routes and shapes are vLLM's, at the server's root.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.bases import BaseInfo
from tunesmith.data.messages import MessageError, normalise_messages, normalise_tools
from tunesmith.data.render import Renderer
from tunesmith.errors import BadRequest
from tunesmith.store.repo import bases
from tunesmith.wire.tokenize import Detokenize, Detokenized, Tokenize, Tokenized

router = APIRouter(route_class=JsonRoute)


@router.post("/tokenize")
def tokenize(body: Tokenize, svc: Svc, caller: CallerDep) -> Tokenized:
    """The ids of a text as /v1/completions reads it, or of messages as a chat does."""
    base = base_of(svc, caller.project, body.model)
    renderer, _ = svc.renderers.get(base.fingerprint, base.path)
    ids = ids_of(body, renderer)
    spelled = [renderer.tokenizer.id_to_token(number) or "" for number in ids]
    return Tokenized(
        count=len(ids),
        max_model_len=base.context_length,
        tokens=ids,
        token_strs=spelled if body.return_token_strs else None,
    )


@router.post("/detokenize")
def detokenize(body: Detokenize, svc: Svc, caller: CallerDep) -> Detokenized:
    base = base_of(svc, caller.project, body.model)
    renderer, _ = svc.renderers.get(base.fingerprint, base.path)
    for place, number in enumerate(body.tokens):
        if not 0 <= number < renderer.vocab_size:
            raise BadRequest(
                f"Invalid value for 'tokens[{place}]': {number} is no token id of this model "
                f"(0 to {renderer.vocab_size - 1}).",
                param=f"tokens[{place}]",
                code="invalid_value",
            )
    return Detokenized(prompt=renderer.tokenizer.decode(body.tokens, skip_special_tokens=False))


@router.get("/tokenizer_info")
def tokenizer_info(
    svc: Svc, caller: CallerDep, model: Annotated[str | None, Query()] = None
) -> dict[str, Any]:
    """The base's tokenizer_config.json, with the chat template in it wherever that lies."""
    base = base_of(svc, caller.project, model)
    path = base.path / "tokenizer_config.json"
    read = json.loads(path.read_bytes()) if path.is_file() else {}
    info: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **read}
    template = base.path / "chat_template.jinja"
    if template.is_file():
        info["chat_template"] = template.read_text("utf-8")
    info["model_max_length"] = base.context_length
    return info


def base_of(svc: Services, project_id: str, name: str | None) -> BaseInfo:
    """The base behind a model's name; without a name, the only one there is."""
    if name is not None:
        return svc.names.find(project_id, name)[0]
    with svc.db.read() as conn:
        known = bases.list_all(conn)
    if len(known) != 1:
        raise BadRequest(
            f"Name a model: this server has {len(known)} base models.",
            param="model",
            code="missing_required_parameter",
        )
    return known[0]


def ids_of(body: Tokenize, renderer: Renderer) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest(
            "Give either 'prompt' or 'messages'.",
            param="prompt",
            code="missing_required_parameter",
        )
    if body.prompt is not None:
        tokenizer = renderer.tokenizer
        return list(tokenizer.encode(body.prompt, add_special_tokens=body.add_special_tokens).ids)
    if not body.add_generation_prompt or body.continue_final_message:
        raise BadRequest(
            "Messages are rendered up to where the answer begins, as for a chat.",
            param="continue_final_message"
            if body.continue_final_message
            else "add_generation_prompt",
            code="unsupported_value",
        )
    try:
        return renderer.prompt(normalise_messages(body.messages), normalise_tools(body.tools))
    except MessageError as error:
        raise BadRequest(f"{error}.", param=error.path, code="invalid_value") from None
