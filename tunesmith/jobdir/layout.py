"""What lies where in a job's directory, the contract between a trainer and whoever runs it.

The launcher writes `spec.json` and, to interrupt, `control`. The process writes everything else
and never reads a database. Every file but the event log is replaced whole (temporary file, fsync,
rename, fsync of the directory), so a reader sees the old text or the new one.

    spec.json         in: what to do. A relaunch replaces it, with a higher fence
    control           in: "pause" or "cancel", looked at once a step; SIGTERM means "interrupt"
    process.json      who works on it now
    validation.json   what the validate phase found
    moderation.jsonl  the rows that its moderator flagged, one a line
    plan.json         what the first start of the train phase decided; a resume obeys it
    reference-*.safetensors  what the start makes of preferences (see train/preference.py)
    rows.npy          how well each row was learned
    samples.json      answers to the same prompts at each checkpoint
    events.jsonl      one event a line, appended; keys make re-emission after a crash harmless
    checkpoints/      step-00000012/ with a manifest
    result.json       the end of the train phase
    trainer.log       standard output and error
"""

from __future__ import annotations

SCHEMA = 1

SPEC_FILE = "spec.json"
CONTROL_FILE = "control"
PROCESS_FILE = "process.json"
VALIDATION_FILE = "validation.json"
FLAGS_FILE = "moderation.jsonl"
PLAN_FILE = "plan.json"
ROWS_FILE = "rows.npy"
SAMPLES_FILE = "samples.json"
EVENTS_FILE = "events.jsonl"
CHECKPOINTS_DIR = "checkpoints"
RESULT_FILE = "result.json"
LOG_FILE = "trainer.log"
