"""/v1/embeddings: texts as vectors, from any model that answers chats."""

from __future__ import annotations

import base64
import math
import struct
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Request

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.meter import Demand, PromptOnly
from tunesmith.api.prompts import prompts_of
from tunesmith.api.sampling import adapter_of
from tunesmith.api.services import Services, Svc
from tunesmith.api.sse import while_connected
from tunesmith.errors import BadRequest
from tunesmith.serve.protocol import EmbedRequest
from tunesmith.wire.embeddings import (
    MAX_INPUTS,
    CreateEmbedding,
    Embedding,
    Embeddings,
    EmbeddingUsage,
)

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@dataclass(frozen=True)
class PreparedEmbedding(PromptOnly):
    request: EmbedRequest


@router.post("/embeddings")
async def create_embeddings(
    body: CreateEmbedding, request: Request, svc: Svc, caller: CallerDep
) -> Embeddings:
    """The mean of the model's last hidden states, of length 1, for each input."""
    admission = await svc.meter.admit(request, caller, partial(prepare, svc, caller.project, body))
    async with admission:
        prepared = admission.prepared
        vectors = await while_connected(request.receive, svc.engine.embed(prepared.request))
    num_tokens = prepared.demand.num_prompt
    return Embeddings(
        data=[
            Embedding(index=index, embedding=shaped(vector, body))
            for index, vector in enumerate(vectors)
        ],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=num_tokens, total_tokens=num_tokens),
    )


def prepare(svc: Services, project_id: str, body: CreateEmbedding) -> PreparedEmbedding:
    """Resolves and checks a request. Reads the database and files: call it in a thread."""
    base, tuned = svc.names.find(project_id, body.model)
    if body.dimensions is not None and body.dimensions > base.hidden_size:
        raise BadRequest(
            f"Invalid value for 'dimensions': this model's vectors have {base.hidden_size}.",
            param="dimensions",
            code="above_max_value",
        )
    renderer, _ = svc.renderers.get(base.fingerprint, base.path)
    if body.input == "":
        raise BadRequest(
            "Invalid value for 'input': must not be empty.", param="input", code="invalid_value"
        )
    prompts = prompts_of(body.input, renderer, param="input", most=MAX_INPUTS)
    for number, prompt in enumerate(prompts):
        if len(prompt.ids) > base.context_length:
            raise BadRequest(
                f"This model's maximum context length is {base.context_length} tokens, however "
                f"input {number} has {len(prompt.ids)} tokens. Please shorten it.",
                param="input",
                code="context_length_exceeded",
            )
    demand = Demand(
        kind="embeddings",
        model=body.model,
        base=svc.names.root(base),
        tuned=tuned is not None,
        num_prompt=sum(len(prompt.ids) for prompt in prompts),
    )
    ids = [prompt.ids for prompt in prompts]
    return PreparedEmbedding(demand, EmbedRequest(base.path, ids, adapter_of(svc, tuned)))


def shaped(vector: list[float], body: CreateEmbedding) -> list[float] | str:
    if body.dimensions is not None and body.dimensions < len(vector):
        vector = vector[: body.dimensions]
        length = math.hypot(*vector) or 1.0
        vector = [value / length for value in vector]
    if body.encoding_format == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector
