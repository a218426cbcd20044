"""Projects, people, service accounts, keys and the audit log as the public API shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.access import Role
from tunesmith.wire.lists import Listed

# A year, as the public API has it.
MAX_KEY_S = 31_536_000


class Deleted(BaseModel):
    object: str
    id: str
    deleted: Literal[True] = True


class Project(Listed):
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]


class CreateProject(BaseModel):
    name: str


class UpdateProject(BaseModel):
    name: str | None = None


class User(Listed):
    object: Literal["organization.user"] = "organization.user"
    name: str
    email: str
    role: str
    added_at: int


class UpdateUser(BaseModel):
    role: str | None = None


class ProjectUser(Listed):
    object: Literal["organization.project.user"] = "organization.project.user"
    name: str
    email: str
    role: str
    added_at: int


class CreateProjectUser(BaseModel):
    """One of both names the user."""

    user_id: str | None = None
    email: str | None = None
    role: str


class UpdateProjectUser(BaseModel):
    role: str | None = None


class ServiceAccount(Listed):
    object: Literal["organization.project.service_account"] = "organization.project.service_account"
    name: str
    role: str
    created_at: int


class ServiceAccountKey(Listed):
    """`value` is shown this once."""

    object: Literal["organization.project.service_account.api_key"] = (
        "organization.project.service_account.api_key"
    )
    value: str
    name: str
    created_at: int


class NewServiceAccount(ServiceAccount):
    api_key: ServiceAccountKey | None


class CreateServiceAccount(BaseModel):
    name: str
    create_service_account_only: bool | None = None


class UpdateServiceAccount(BaseModel):
    name: str | None = None
    role: str | None = None


class CreateServiceAccountKey(BaseModel):
    name: str | None = None
    scopes: list[str] | None = None


class OwnerUser(BaseModel):
    id: str
    email: str
    name: str
    created_at: int
    role: Role


class OwnerServiceAccount(BaseModel):
    id: str
    name: str
    created_at: int
    role: Role


class KeyOwner(BaseModel):
    """Empty for a key that is nobody's own: one that the command line made for a project."""

    type: Literal["user", "service_account"] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    user: OwnerUser | None = Field(default=None, exclude_if=lambda value: value is None)
    service_account: OwnerServiceAccount | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


class ProjectKey(Listed):
    """A key without its secret. Role, scopes and expiry are this server's own fields."""

    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    redacted_value: str
    name: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    role: str
    scopes: list[str]
    owner_project_access: Literal["active", "inactive"]
    owner: KeyOwner


class NewProjectKey(ProjectKey):
    """`value` is shown this once."""

    value: str


class CreateProjectKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    role: str = "member"
    scopes: list[str] | None = None
    user_id: str | None = None
    expires_in_seconds: int | None = Field(None, ge=1, le=MAX_KEY_S)


class AdminOwner(BaseModel):
    type: str
    object: str
    id: str
    name: str
    created_at: int
    role: str


class AdminKey(Listed):
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    owner: AdminOwner


class NewAdminKey(AdminKey):
    """`value` is shown this once."""

    value: str


class CreateAdminKey(BaseModel):
    name: str
    expires_in_seconds: int | None = Field(None, ge=1, le=MAX_KEY_S)


class AuditActorKey(BaseModel):
    id: str
    type: Literal["user", "service_account"]
    user: dict[str, str] | None


class AuditActor(BaseModel):
    type: Literal["api_key"] = "api_key"
    api_key: AuditActorKey


class AuditProject(BaseModel):
    id: str
    name: str


class AuditLog(Listed):
    """A change. What it was about stands under the name of its type, as published."""

    model_config = ConfigDict(extra="allow")

    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: str
    effective_at: int
    actor: AuditActor | None
    """None: the command line, or the server itself."""
    project: AuditProject | None

    @classmethod
    def about(cls, detail: dict[str, Any], **fields: Any) -> AuditLog:
        return cls.model_validate(fields | {fields["type"]: detail})
