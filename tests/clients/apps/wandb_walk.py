"""Weights & Biases' `WandbLogger.sync`, offline, of a job that it waits for.

python wandb_walk.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

BASE_URL, API_KEY, MODEL, TRAINING_FILE = sys.argv[1:]
place = tempfile.mkdtemp(prefix="wandb-")
os.environ.update(
    OPENAI_BASE_URL=BASE_URL,
    OPENAI_API_KEY=API_KEY,
    WANDB_MODE="offline",
    WANDB_DIR=place,
    WANDB_SILENT="true",
    WANDB_BASE_URL="http://127.0.0.1:9",  # nothing may leave
)

import wandb  # noqa: E402
from openai import OpenAI  # noqa: E402
from wandb.integration.openai.fine_tuning import WandbLogger  # noqa: E402

# It insists on a login, also where nothing is sent; artifacts of the files need its server.
WandbLogger._logged_in = True
client = OpenAI()
file = client.files.create(file=Path(TRAINING_FILE), purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model=MODEL,
    training_file=file.id,
    validation_file=file.id,
    hyperparameters={"n_epochs": 1, "batch_size": 1},
)
assert WandbLogger.sync(
    fine_tune_job_id=job.id, openai_client=client, project="walk", log_datasets=False
)
wandb.teardown()  # its own process may still be writing
runs = list(Path(place).rglob("*.wandb"))
assert runs, "no run was written"
assert max(run.stat().st_size for run in runs) > 2000
print("wandb passed")
