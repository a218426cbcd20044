"""Callers as the gate would name them."""

from __future__ import annotations

from tunesmith.access import DEFAULT_PROJECT, Caller, Role, scopes_of


def caller(role: Role = "owner", project_id: str = DEFAULT_PROJECT) -> Caller:
    return Caller(f"key_{role}", project_id, role, scopes_of(role, project_id))


OWNER = caller()
