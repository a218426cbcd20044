"""/v1/chat/completions: any model by name, the moment it exists."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response

from tunesmith.api.body import JsonRoute
from tunesmith.api.chat_answer import Answer, News
from tunesmith.api.chat_request import prepare
from tunesmith.api.services import Services, Svc
from tunesmith.api.sse import EventStream, while_connected
from tunesmith.ids import CHAT_COMPLETION, new_id
from tunesmith.wire.chat import ChatCompletion, CreateChatCompletion

router = APIRouter(prefix="/v1/chat", route_class=JsonRoute)


@router.post("/completions")
async def create_chat_completion(
    body: CreateChatCompletion, request: Request, svc: Svc
) -> Response:
    """Answers a conversation. A client that hangs up cancels its answer, streamed or not."""
    prepared = await run_sync(prepare, svc, body)
    answer = Answer(
        id=new_id(CHAT_COMPLETION, svc.rng),
        created=int(svc.clock.now()),
        prepared=prepared,
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
    if not body.stream:
        completion = await while_connected(request.receive, whole(svc, answer))
        return Response(completion.model_dump_json(), media_type="application/json")
    news = answer.news(svc.engine)
    # The first news before the headers: an engine that is not there is a 503, not a broken stream.
    first = await while_connected(request.receive, following(news))
    return EventStream(streamed(svc, answer, first, news))


async def whole(svc: Services, answer: Answer) -> ChatCompletion:
    async with aclosing(answer.news(svc.engine)) as news:
        completion = await answer.whole(news)
    count(svc, answer)
    return completion


async def following(news: AsyncIterator[News]) -> News | None:
    return await anext(news, None)


async def streamed(
    svc: Services, answer: Answer, first: News | None, news: AsyncGenerator[News, None]
) -> AsyncGenerator[bytes, None]:
    async def all_news() -> AsyncIterator[News]:
        if first is not None:
            yield first
            async for item in news:
                yield item

    async with aclosing(news):
        async for chunk in answer.chunks(all_news()):
            yield chunk
    count(svc, answer)


def count(svc: Services, answer: Answer) -> None:
    usage: dict[str, Any] = answer.usage.model_dump(include={"prompt_tokens", "completion_tokens"})
    for kind, num_tokens in usage.items():
        svc.metrics.chat_tokens.labels(kind.removesuffix("_tokens")).inc(num_tokens)
