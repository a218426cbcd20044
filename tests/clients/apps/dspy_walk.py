"""DSPy: a program, and its fine-tune provider (its own polling, with a shorter sleep).

python dspy_walk.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

BASE_URL, API_KEY, MODEL, TRAINING_FILE = sys.argv[1:]
os.environ.update(OPENAI_BASE_URL=BASE_URL, OPENAI_API_KEY=API_KEY)

import dspy  # noqa: E402
from dspy.clients.openai import OpenAIProvider  # noqa: E402
from dspy.clients.utils_finetune import TrainDataFormat  # noqa: E402

OpenAIProvider.wait_for_job = staticmethod(
    functools.partial(OpenAIProvider.wait_for_job, poll_frequency=1)
)

lm = dspy.LM(f"openai/{MODEL}", api_base=BASE_URL, api_key=API_KEY, max_tokens=16, cache=False)
assert lm("What comes after Friday?")

rows = [json.loads(line) for line in Path(TRAINING_FILE).read_text().splitlines()]
job = lm.finetune(rows, TrainDataFormat.CHAT, {"n_epochs": 1})
tuned = job.result()
assert not isinstance(tuned, Exception), tuned
assert tuned.model.removeprefix("openai/").startswith(f"ft:{MODEL}:"), tuned.model
named = dspy.LM(
    f"openai/{tuned.model.removeprefix('openai/')}",
    api_base=BASE_URL,
    api_key=API_KEY,
    max_tokens=16,
    cache=False,
)
assert named("What comes after Friday?")
print("dspy passed")
