"""The data that comes with the package, and the job that shows what this is about."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent / "assets" / "demo"
TRAINING_FILE = DIRECTORY / "snips_train.jsonl"
HELD_OUT_FILE = DIRECTORY / "snips_heldout.jsonl"
BASE = "tunesmith-nano"
SUFFIX = "intents"
SEED = 7
HYPERPARAMETERS = {"n_epochs": 3, "batch_size": 16}
