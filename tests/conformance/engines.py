"""The engines that every case runs on: how each is started, and the base it serves.

An engine is whatever answers a `GenRequest`, a `ScoreRequest` and an `EmbedRequest` as
`EngineClient` does. A case must hold on each of them, so it may compare answers with each other
and with what was asked, never with tokens that only one of them gives.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.tiny_base import SPECIAL, tiny_prompt, write_tiny_base
from tests.tiny_transformers import build
from tunesmith.errors import TunesmithError
from tunesmith.serve.client import EngineClient
from tunesmith.serve.protocol import (
    Done,
    EmbedRequest,
    GenRequest,
    ScoreRequest,
    TokenLogprob,
)

# Engine -> the name of its base. The first two run in one engine process, on different paths.
ENGINES = {"local": "tiny", "transformers": "slow", "vllm": "wide"}
END = SPECIAL.index("<|end|>")


@dataclass
class Answered:
    """What came of one request."""

    ids: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)
    done: Done | None = None
    error: TunesmithError | None = None


@dataclass(frozen=True)
class Engine:
    client: EngineClient
    base: Path
    generates_only: bool = False
    """It gives no embeddings, and says so."""

    def request(
        self, prompt: str | list[int] = "the quick brown fox", **given: object
    ) -> GenRequest:
        """A greedy request of 12 tokens, but for what is given."""
        ids = tiny_prompt(prompt) if isinstance(prompt, str) else prompt
        options = {"max_new_tokens": 12, "stop_ids": frozenset({END}), "temperature": 0.0} | given
        return GenRequest(self.base, ids, **options)  # type: ignore[arg-type]

    def ask(self, *requests: GenRequest) -> list[Answered]:
        """Answers to requests that run at the same time."""

        async def together() -> list[Answered]:
            return await asyncio.gather(*map(self._ask, requests))

        return asyncio.run(together())

    def score(self, request: ScoreRequest) -> list[TokenLogprob]:
        return asyncio.run(self.client.score(request))

    def embed(self, request: EmbedRequest) -> list[list[float]]:
        return asyncio.run(self.client.embed(request))

    async def _ask(self, request: GenRequest) -> Answered:
        answer = Answered()
        try:
            async with self.client.generate(request) as generation:
                async for delta in generation:
                    answer.ids.setdefault(delta.index, []).extend(delta.token_ids)
                    answer.logprobs.setdefault(delta.index, []).extend(delta.logprobs or [])
                    if delta.finish_reason is not None:
                        answer.finish[delta.index] = delta.finish_reason
            answer.done = generation.done
        except TunesmithError as error:
            answer.error = error
        return answer


def write_slow_base(directory: Path) -> Path:
    """The tiny base's tokenizer and template around a model that only transformers runs."""
    write_tiny_base(directory)
    (directory / "model.safetensors").unlink()
    parts = ("vocab_size", 512), ("max_position_embeddings", 2048), ("bos_token_id", 1)
    model = build("llama-bias", **dict(parts), eos_token_id=[END, 2], pad_token_id=0)
    model.save_pretrained(directory / "model")
    for name in ("config.json", "model.safetensors"):
        shutil.move(directory / "model" / name, directory / name)
    return directory


@contextmanager
def engine_process(data: Path, **settings: str) -> Iterator[None]:
    given = {"TUNESMITH_DATA": str(data), "TUNESMITH_ENGINE_THREADS": "1"}
    environment = os.environ | given | {f"TUNESMITH_{k.upper()}": v for k, v in settings.items()}
    command = [sys.executable, "-m", "tunesmith.serve"]
    log = (data / "engine.log").open("wb")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        yield
        process.terminate()
