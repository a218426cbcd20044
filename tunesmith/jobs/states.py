"""The life of a job as a pure function: (state, event) -> new state.

    validating_files --validated--> queued --claimed--> running --succeeded--> succeeded
           |                         ^  ^                |  |  `---failed----> failed
         failed                      |  `--interrupted---'  |
                                     |                      |
                                     `--resumed-- paused <--'

Cancelled is reached from every state but the three ends. Requests (cancel, pause) on a job that a
worker holds only set `control`: the worker acts on it and reports back. On a job that nobody holds
they take effect at once. A crash leaves the job with its holder, to be launched again, until it
has crashed too often without getting further.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

Control = Literal["cancel", "pause"]


class Status(StrEnum):
    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
WAITING = (Status.VALIDATING.value, Status.QUEUED.value)
UNDER_WAY = (*WAITING, Status.RUNNING.value)
OPEN = (*UNDER_WAY, Status.PAUSED.value)


class Event(StrEnum):
    VALIDATED = "validated"
    CLAIMED = "claimed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    CANCEL_REQUESTED = "cancel_requested"
    PAUSE_REQUESTED = "pause_requested"
    RESUME_REQUESTED = "resume_requested"


class Refused(Exception):
    """The event does not fit the state; the text says why, for a user."""


@dataclass(frozen=True)
class State:
    status: Status
    held: bool = False
    """Whether a worker has the job: a lease that ran out still counts, its trainer may live."""
    control: Control | None = None
    attempts: int = 0
    """Crashes since the last progress."""
    crash_step: int = -1
    """The step reached at the latest crash; -1 = none yet."""


def apply(state: State, event: Event, *, last_step: int = 0, max_attempts: int = 1) -> State:
    """The state after an event. Raises Refused, also for anything that would leave an end."""
    request = _REQUESTS.get(event)
    if request is not None:
        return request(state)
    if event in (Event.CRASHED, Event.INTERRUPTED, Event.VALIDATED) and state.held:
        if state.control == "cancel":
            return State(Status.CANCELLED)
        if state.control == "pause" and state.status is Status.RUNNING:
            return State(Status.PAUSED)
    if event is Event.CRASHED and state.held:
        return _crashed(state, last_step, max_attempts)
    target = _MOVES.get((state.status, event))
    if target is None:
        raise Refused(f"{event} does not fit a job that is {state.status}.")
    if event is Event.CLAIMED:
        return replace(state, status=target, held=True)
    if event is Event.INTERRUPTED:
        return replace(state, status=target, held=False, control=None)
    return State(target)


_MOVES = {
    (Status.VALIDATING, Event.CLAIMED): Status.VALIDATING,
    (Status.VALIDATING, Event.VALIDATED): Status.QUEUED,
    (Status.VALIDATING, Event.FAILED): Status.FAILED,
    (Status.VALIDATING, Event.INTERRUPTED): Status.VALIDATING,
    (Status.VALIDATING, Event.CANCELLED): Status.CANCELLED,
    (Status.QUEUED, Event.CLAIMED): Status.RUNNING,
    (Status.RUNNING, Event.CLAIMED): Status.RUNNING,
    (Status.RUNNING, Event.SUCCEEDED): Status.SUCCEEDED,
    (Status.RUNNING, Event.FAILED): Status.FAILED,
    (Status.RUNNING, Event.INTERRUPTED): Status.QUEUED,
    (Status.RUNNING, Event.CANCELLED): Status.CANCELLED,
    (Status.RUNNING, Event.PAUSED): Status.PAUSED,
}


def _crashed(state: State, last_step: int, max_attempts: int) -> State:
    attempts = 1 if last_step > state.crash_step else state.attempts + 1
    if attempts >= max_attempts:
        return State(Status.FAILED, attempts=attempts, crash_step=last_step)
    return replace(state, attempts=attempts, crash_step=last_step)


def _cancel(state: State) -> State:
    if state.status in TERMINAL:
        raise Refused(f"it has already ended: its status is '{state.status}'")
    return replace(state, control="cancel") if state.held else State(Status.CANCELLED)


def _pause(state: State) -> State:
    if state.status is Status.QUEUED:
        return State(Status.PAUSED)
    if state.status is not Status.RUNNING:
        raise Refused(
            f"its status is '{state.status}', and only queued and running jobs can be paused"
        )
    if state.control == "cancel":
        raise Refused("it is being cancelled")
    return replace(state, control="pause")


def _resume(state: State) -> State:
    if state.status is Status.PAUSED:
        return State(Status.QUEUED)
    if state.control == "pause":
        raise Refused("it is still pausing; try again when its status is 'paused'")
    raise Refused(f"its status is '{state.status}', and only paused jobs can be resumed")


_REQUESTS = {
    Event.CANCEL_REQUESTED: _cancel,
    Event.PAUSE_REQUESTED: _pause,
    Event.RESUME_REQUESTED: _resume,
}
