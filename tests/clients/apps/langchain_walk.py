"""LangChain's OpenAI classes: chat, streams, tools, structured output, logprobs, completions,
embeddings.

    python langchain_walk.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

BASE_URL, API_KEY, MODEL, _ = sys.argv[1:]
CONNECTION = {"base_url": BASE_URL, "api_key": API_KEY, "model": MODEL}


class Day(BaseModel):
    """A day of the week."""

    day: str


@tool
def pick(day: str) -> str:
    """Picks a day."""
    return day


chat = ChatOpenAI(**CONNECTION, temperature=0, max_tokens=16, logprobs=True)
answer = chat.invoke([("system", "Be brief."), ("user", "What comes after Friday?")])
assert answer.content
assert answer.response_metadata["model_name"] == MODEL
assert answer.response_metadata["logprobs"]["content"]
assert answer.usage_metadata["total_tokens"] > answer.usage_metadata["output_tokens"] > 0

streaming = ChatOpenAI(**CONNECTION, temperature=0, max_tokens=16, stream_usage=True)
chunks = list(streaming.stream("What comes after Friday?"))
assert len(chunks) > 2
assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) > 0
assert len(streaming.batch(["one", "two", "three"])) == 3

plain = ChatOpenAI(**CONNECTION, temperature=0, max_tokens=64)
called = plain.bind_tools([pick], tool_choice="pick").invoke("Pick a day.")
assert [call["name"] for call in called.tool_calls] == ["pick"]
for method in ("json_schema", "function_calling"):
    found = plain.with_structured_output(Day, method=method).invoke("Name a day.")
    assert isinstance(found, Day), method

assert OpenAI(**CONNECTION, max_tokens=8).invoke("The capital of France is")
vectors = OpenAIEmbeddings(**CONNECTION, check_embedding_ctx_length=False).embed_documents(
    ["one", "two"]
)
assert len(vectors) == 2
assert len(vectors[0]) > 10
print("langchain passed")
