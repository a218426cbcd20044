"""/v1/chat/completions: any model by name, the moment it exists."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from fastapi import APIRouter, Request, Response

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.chat_answer import Answer
from tunesmith.api.chat_request import is_light, prepare
from tunesmith.api.sampling import FOREIGN_TO_CHATS, refuse_foreign
from tunesmith.api.services import Svc
from tunesmith.api.sse import EventStream, begun, closing_after, while_connected
from tunesmith.ids import CHAT_COMPLETION, new_id
from tunesmith.wire.chat import CreateChatCompletion

router = APIRouter(prefix="/v1/chat", route_class=JsonRoute)


@router.post("/completions")
async def create_chat_completion(
    body: CreateChatCompletion, request: Request, svc: Svc, caller: CallerDep
) -> Response:
    """Answers a conversation. A client that hangs up cancels its answer, streamed or not."""
    refuse_foreign(await request.json(), FOREIGN_TO_CHATS)
    async with AsyncExitStack() as stack:
        admission = await svc.meter.admit(
            request,
            caller,
            partial(prepare, svc, caller.project, body),
            at_once=is_light(svc, caller.project, body, len(await request.body())),
        )
        prepared = (await stack.enter_async_context(admission)).prepared
        answer = Answer(
            id=new_id(CHAT_COMPLETION, svc.rng),
            created=int(svc.clock.now()),
            prepared=prepared,
            rng=svc.rng,
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
        )
        # Before anybody else's request is looked at: the engine works on it meanwhile.
        stack.callback(prepared.text.begin(svc.engine).close)
        news = prepared.text.news()
        if not body.stream:
            whole = await while_connected(request.receive, closing_after(news, answer.whole(news)))
            return Response(whole.model_dump_json(), media_type="application/json")
        # The first news before the headers: an engine that is not there is a 503, not a broken
        # stream.
        all_news = await while_connected(request.receive, begun(news))
        return EventStream(answer.chunks(all_news), closing=news, within=stack.pop_all())
