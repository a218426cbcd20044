"""The table of the state machine, and what it refuses."""

from __future__ import annotations

from itertools import product

import pytest

from tunesmith.jobs.states import TERMINAL, Event, Refused, State, Status, apply


@pytest.mark.parametrize(("status", "event"), list(product(sorted(TERMINAL), Event)))
def test_an_end_is_the_end(status: Status, event: Event) -> None:
    with pytest.raises(Refused):
        apply(State(status), event)


def test_the_straight_way() -> None:
    state = State(Status.VALIDATING)
    for event, status in [
        (Event.CLAIMED, Status.VALIDATING),
        (Event.VALIDATED, Status.QUEUED),
        (Event.CLAIMED, Status.RUNNING),
        (Event.SUCCEEDED, Status.SUCCEEDED),
    ]:
        state = apply(state, event)
        assert state.status is status
        assert state.held == (event is Event.CLAIMED)


@pytest.mark.parametrize(
    ("state", "event", "status", "control"),
    [
        (State(Status.VALIDATING), Event.CANCEL_REQUESTED, Status.CANCELLED, None),
        (State(Status.QUEUED), Event.CANCEL_REQUESTED, Status.CANCELLED, None),
        (State(Status.PAUSED), Event.CANCEL_REQUESTED, Status.CANCELLED, None),
        (State(Status.RUNNING, held=True), Event.CANCEL_REQUESTED, Status.RUNNING, "cancel"),
        (State(Status.VALIDATING, held=True), Event.CANCEL_REQUESTED, "validating_files", "cancel"),
        (State(Status.RUNNING, True, "pause"), Event.CANCEL_REQUESTED, Status.RUNNING, "cancel"),
        (State(Status.QUEUED), Event.PAUSE_REQUESTED, Status.PAUSED, None),
        (State(Status.RUNNING, held=True), Event.PAUSE_REQUESTED, Status.RUNNING, "pause"),
        (State(Status.PAUSED), Event.RESUME_REQUESTED, Status.QUEUED, None),
    ],
)
def test_requests(state: State, event: Event, status: str, control: str | None) -> None:
    after = apply(state, event)
    assert (after.status, after.control) == (status, control)


@pytest.mark.parametrize(
    ("state", "event", "reason"),
    [
        (State(Status.SUCCEEDED), Event.CANCEL_REQUESTED, "already ended"),
        (State(Status.VALIDATING), Event.PAUSE_REQUESTED, "only queued and running"),
        (State(Status.PAUSED), Event.PAUSE_REQUESTED, "'paused'"),
        (State(Status.RUNNING, True, "cancel"), Event.PAUSE_REQUESTED, "being cancelled"),
        (State(Status.RUNNING, True, "pause"), Event.RESUME_REQUESTED, "still pausing"),
        (State(Status.QUEUED), Event.RESUME_REQUESTED, "only paused"),
    ],
)
def test_refusals_say_why(state: State, event: Event, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        apply(state, event)


@pytest.mark.parametrize("event", [Event.CRASHED, Event.INTERRUPTED])
def test_a_request_comes_true_when_the_trainer_is_gone(event: Event) -> None:
    assert apply(State(Status.RUNNING, True, "cancel"), event).status is Status.CANCELLED
    assert apply(State(Status.RUNNING, True, "pause"), event).status is Status.PAUSED
    assert apply(State(Status.VALIDATING, True, "cancel"), event).status is Status.CANCELLED


def test_success_beats_a_late_request() -> None:
    state = State(Status.RUNNING, True, "cancel")
    assert apply(state, Event.SUCCEEDED).status is Status.SUCCEEDED


def test_crashes_without_progress_are_counted_and_progress_forgives() -> None:
    state = State(Status.RUNNING, held=True)
    for last_step, attempts in [(0, 1), (0, 2), (3, 1), (3, 2)]:
        state = apply(state, Event.CRASHED, last_step=last_step, max_attempts=3)
        assert (state.status, state.held, state.attempts) == (Status.RUNNING, True, attempts)
    assert apply(state, Event.CRASHED, last_step=3, max_attempts=3).status is Status.FAILED


def test_a_crash_needs_someone_who_had_the_job() -> None:
    for status in (Status.QUEUED, Status.PAUSED):
        with pytest.raises(Refused):
            apply(State(status), Event.CRASHED)
