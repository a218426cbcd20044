"""Who may do what: projects, roles, scopes, and the caller that a request is made by.

A project owns files, jobs and models. A key belongs to one project and has a role in it; the role
gives scopes, and a key may be narrowed to some of them. A key of the organisation (admin key) has
no project and reaches nothing but the organisation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

# Made with the database; what was there before there were projects belongs to it.
DEFAULT_PROJECT = "proj_default"

Role = Literal["owner", "member", "reader"]
KeyKind = Literal["project", "admin"]


class Scope(StrEnum):
    """What a route needs; api/routes.py says which."""

    FILES_READ = "api.files.read"
    FILES_WRITE = "api.files.write"
    JOBS_READ = "api.fine_tuning.jobs.read"
    JOBS_WRITE = "api.fine_tuning.jobs.write"
    MODELS_READ = "api.models.read"
    MODELS_WRITE = "api.models.write"
    MODEL_REQUEST = "api.model.request"
    DATA_READ = "api.tunesmith.data.read"
    USAGE_READ = "api.usage.read"
    WEBHOOKS_READ = "api.webhooks.read"
    WEBHOOKS_WRITE = "api.webhooks.write"
    KEYS_READ = "api.keys.read"
    KEYS_WRITE = "api.keys.write"
    SESSION = "api.tunesmith.session"
    METRICS_READ = "api.metrics.read"
    ORGANIZATION_READ = "api.organization.read"
    ORGANIZATION_WRITE = "api.organization.write"


_READER = frozenset(
    {
        Scope.FILES_READ,
        Scope.JOBS_READ,
        Scope.MODELS_READ,
        Scope.DATA_READ,
        Scope.USAGE_READ,
        Scope.WEBHOOKS_READ,
        Scope.SESSION,
    }
)
_MEMBER = _READER | {Scope.FILES_WRITE, Scope.JOBS_WRITE, Scope.MODEL_REQUEST}
_OWNER = _MEMBER | {
    Scope.MODELS_WRITE,
    Scope.WEBHOOKS_WRITE,
    Scope.KEYS_READ,
    Scope.KEYS_WRITE,
}
ROLE_SCOPES: dict[Role, frozenset[Scope]] = {"reader": _READER, "member": _MEMBER, "owner": _OWNER}
# Of the server as a whole, so not for every project's keys.
ADMIN_SCOPES = frozenset({Scope.METRICS_READ, Scope.ORGANIZATION_READ, Scope.ORGANIZATION_WRITE})


@dataclass(frozen=True)
class Caller:
    """The key that a request came with, and what it may do."""

    key_id: str
    project_id: str | None
    """None for a key of the organisation."""
    role: Role
    scopes: frozenset[Scope]
    user_id: str | None = None
    kind: KeyKind = "project"

    @property
    def project(self) -> str:
        """The project of a project's key; other keys do not pass the gate where this is asked."""
        assert self.project_id is not None
        return self.project_id


def scopes_of(
    role: Role, project_id: str | None, only: Iterable[str] | None = None
) -> frozenset[Scope]:
    """What a key may do: its role's scopes, narrowed to `only` where that is given.

    Owners of the default project also run the organisation, so that a server of one user needs
    one key.
    """
    if project_id is None:
        granted = ADMIN_SCOPES
    elif project_id == DEFAULT_PROJECT:
        own = ADMIN_SCOPES if role == "owner" else frozenset({Scope.METRICS_READ})
        granted = ROLE_SCOPES[role] | own
    else:
        granted = ROLE_SCOPES[role]
    return granted if only is None else granted & {Scope(name) for name in only}
