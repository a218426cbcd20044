"""Webhook endpoints and their deliveries as the API shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from tunesmith.wire.lists import Listed
from tunesmith.wire.requests import RequestBody

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
EventTypes = Annotated[list[str], Field(min_length=1, max_length=100)]


class CreateEndpoint(RequestBody):
    name: Name
    url: str
    event_types: EventTypes


class UpdateEndpoint(RequestBody):
    """What is left out stays."""

    name: Name | None = None
    url: str | None = None
    event_types: EventTypes | None = None


class RotateSecret(RequestBody):
    keep_old_secret_active_for_24_hours: bool = False


class TestEndpoint(RequestBody):
    event_type: str


class Endpoint(Listed):
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str


class EndpointWithSecret(Endpoint):
    """Of a create or a rotation, and never again."""

    signing_secret: str


class DeletedEndpoint(BaseModel):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class TestResult(BaseModel):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    success: Literal[True] = True
    status_code: int


class EventTypeList(BaseModel):
    object: Literal["list"] = "list"
    data: list[str]


class Attempt(BaseModel):
    number: int
    at: int
    duration_ms: int
    status_code: int | None
    error: str | None


class Delivery(Listed):
    """One event on its way to one receiver."""

    object: Literal["tunesmith.delivery"] = "tunesmith.delivery"
    channel: str
    state: str
    event_id: str
    event_type: str
    job_id: str
    target: str
    created_at: int
    next_attempt_at: int | None
    finished_at: int | None
    attempts: list[Attempt]


class Notifications(BaseModel):
    """Whom a project wants told, and the trackers it has a key for."""

    object: Literal["tunesmith.notifications"] = "tunesmith.notifications"
    emails: list[str]
    wandb_api_key_hint: str | None


class UpdateNotifications(RequestBody):
    """What is left out stays; an empty text takes the key away."""

    emails: Annotated[list[str], Field(max_length=20)] | None = None
    wandb_api_key: Annotated[str, StringConstraints(max_length=256)] | None = None
