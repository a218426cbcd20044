"""LiteLLM as a client: files, fine-tuning, chat, completions, embeddings, moderation.

python litellm_walk.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import litellm
from litellm.types.utils import LiteLLMFineTuningJob

BASE_URL, API_KEY, MODEL, TRAINING_FILE = sys.argv[1:]
HERE = {"api_base": BASE_URL, "api_key": API_KEY, "custom_llm_provider": "openai"}
ASKED = {"api_base": BASE_URL, "api_key": API_KEY}
MESSAGES = [{"role": "user", "content": "What comes after Friday?"}]


def ended(job_id: str) -> LiteLLMFineTuningJob:
    while True:
        found = litellm.retrieve_fine_tuning_job(fine_tuning_job_id=job_id, **HERE)
        if found.status in ("succeeded", "failed", "cancelled"):
            return found
        time.sleep(0.5)


file = litellm.create_file(file=Path(TRAINING_FILE).open("rb"), purpose="fine-tune", **HERE)  # noqa: SIM115
assert litellm.file_retrieve(file_id=file.id, **HERE).status == "processed"
assert file.id in [each.id for each in litellm.file_list(**HERE)]
assert litellm.file_content(file_id=file.id, **HERE).content == Path(TRAINING_FILE).read_bytes()

job = litellm.create_fine_tuning_job(
    model=MODEL, training_file=file.id, hyperparameters={"n_epochs": 1}, suffix="lite", **HERE
)
assert job.id in [each.id for each in litellm.list_fine_tuning_jobs(limit=5, **HERE)]
assert ended(job.id).status == "succeeded"
job = litellm.retrieve_fine_tuning_job(fine_tuning_job_id=job.id, **HERE)
second = litellm.create_fine_tuning_job(model=MODEL, training_file=file.id, **HERE)
litellm.cancel_fine_tuning_job(fine_tuning_job_id=second.id, **HERE)
assert ended(second.id).status == "cancelled"

tuned = f"openai/{job.fine_tuned_model}"
answer = litellm.completion(model=tuned, messages=MESSAGES, max_tokens=8, **ASKED)
assert answer.choices[0].message.content
assert answer.usage.total_tokens > 0
chunks = list(
    litellm.completion(model=tuned, messages=MESSAGES, max_tokens=8, stream=True, **ASKED)
)
assert len(chunks) > 1
text = litellm.text_completion(
    model=f"text-completion-openai/{MODEL}", prompt="The capital", max_tokens=4, **ASKED
)
assert text.choices[0].text
vectors = litellm.embedding(model=f"openai/{MODEL}", input=["one", "two"], **ASKED)
assert len(vectors.data) == 2
judged = litellm.moderation(input="What comes after Friday?", **ASKED)
assert judged.results[0].flagged is False
assert litellm.file_delete(file_id=file.id, **HERE).deleted
print("litellm passed")
