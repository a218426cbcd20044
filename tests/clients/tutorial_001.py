"""The code of "GPT Fine-Tuning: A 7-Minute Comprehensive Guide", as printed, with openai 0.28.1.

Only the address and the names of file, job and model are ours.

    PYTHONPATH=<client> python tutorial_001.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import openai

BASE_URL, API_KEY, MODEL, TRAINING_FILE = sys.argv[1:]
os.environ["OPENAI_API_KEY"] = API_KEY
openai.api_base = BASE_URL

openai.api_key = os.getenv("OPENAI_API_KEY")
with open(TRAINING_FILE, "rb") as training_data:  # noqa: PTH123 - the tutorial's own way
    uploaded = openai.File.create(file=training_data, purpose="fine-tune")

job: Any = openai.FineTuningJob.create(training_file=uploaded.id, model=MODEL)

while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.2)
    job = openai.FineTuningJob.retrieve(job.id)
assert job.status == "succeeded", job

completion = openai.ChatCompletion.create(
    model=job.fine_tuned_model,
    messages=[
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"},
    ],
)
print(completion.choices[0].message)
assert completion.choices[0].message["role"] == "assistant"
