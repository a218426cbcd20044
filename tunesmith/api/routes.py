"""What each route needs: the one table that the gate goes by. What is not in it is not served."""

from __future__ import annotations

import re

from tunesmith.access import Scope

_READ, _WRITE = Scope.ORGANIZATION_READ, Scope.ORGANIZATION_WRITE
_PROJECT = "/v1/organization/projects/{project_id}"

# (method, path as its router spells it) -> the scope that a key must have; None: no key at all.
ROUTES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): Scope.METRICS_READ,
    ("POST", "/v1/files"): Scope.FILES_WRITE,
    ("GET", "/v1/files"): Scope.FILES_READ,
    ("GET", "/v1/files/{file_id}"): Scope.FILES_READ,
    ("DELETE", "/v1/files/{file_id}"): Scope.FILES_WRITE,
    ("GET", "/v1/files/{file_id}/content"): Scope.FILES_READ,
    ("POST", "/v1/fine_tuning/jobs"): Scope.JOBS_WRITE,
    ("GET", "/v1/fine_tuning/jobs"): Scope.JOBS_READ,
    ("GET", "/v1/fine_tuning/jobs/{job_id}"): Scope.JOBS_READ,
    ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel"): Scope.JOBS_WRITE,
    ("POST", "/v1/fine_tuning/jobs/{job_id}/pause"): Scope.JOBS_WRITE,
    ("POST", "/v1/fine_tuning/jobs/{job_id}/resume"): Scope.JOBS_WRITE,
    ("GET", "/v1/fine_tuning/jobs/{job_id}/events"): Scope.JOBS_READ,
    ("GET", "/v1/fine_tuning/jobs/{job_id}/checkpoints"): Scope.JOBS_READ,
    ("GET", "/v1/models"): Scope.MODELS_READ,
    ("GET", "/v1/models/{name:path}"): Scope.MODELS_READ,
    ("DELETE", "/v1/models/{name:path}"): Scope.MODELS_WRITE,
    ("POST", "/v1/chat/completions"): Scope.MODEL_REQUEST,
    ("POST", "/v1/completions"): Scope.MODEL_REQUEST,
    ("POST", "/v1/embeddings"): Scope.MODEL_REQUEST,
    ("POST", "/v1/moderations"): Scope.MODEL_REQUEST,
    ("POST", "/tokenize"): Scope.MODEL_REQUEST,
    ("POST", "/detokenize"): Scope.MODEL_REQUEST,
    ("GET", "/tokenizer_info"): Scope.MODELS_READ,
    ("GET", "/v1/organization/projects"): _READ,
    ("POST", "/v1/organization/projects"): _WRITE,
    ("GET", _PROJECT): _READ,
    ("POST", _PROJECT): _WRITE,
    ("POST", f"{_PROJECT}/archive"): _WRITE,
    ("GET", f"{_PROJECT}/users"): _READ,
    ("POST", f"{_PROJECT}/users"): _WRITE,
    ("GET", f"{_PROJECT}/users/{{user_id}}"): _READ,
    ("POST", f"{_PROJECT}/users/{{user_id}}"): _WRITE,
    ("DELETE", f"{_PROJECT}/users/{{user_id}}"): _WRITE,
    ("GET", f"{_PROJECT}/service_accounts"): _READ,
    ("POST", f"{_PROJECT}/service_accounts"): _WRITE,
    ("GET", f"{_PROJECT}/service_accounts/{{account_id}}"): _READ,
    ("POST", f"{_PROJECT}/service_accounts/{{account_id}}"): _WRITE,
    ("DELETE", f"{_PROJECT}/service_accounts/{{account_id}}"): _WRITE,
    ("POST", f"{_PROJECT}/service_accounts/{{account_id}}/api_keys"): _WRITE,
    ("GET", f"{_PROJECT}/api_keys"): _READ,
    ("GET", f"{_PROJECT}/api_keys/{{key_id}}"): _READ,
    ("DELETE", f"{_PROJECT}/api_keys/{{key_id}}"): _WRITE,
    ("GET", "/v1/organization/users"): _READ,
    ("GET", "/v1/organization/users/{user_id}"): _READ,
    ("POST", "/v1/organization/users/{user_id}"): _WRITE,
    ("DELETE", "/v1/organization/users/{user_id}"): _WRITE,
    ("GET", "/v1/organization/admin_api_keys"): _READ,
    ("POST", "/v1/organization/admin_api_keys"): _WRITE,
    ("GET", "/v1/organization/admin_api_keys/{key_id}"): _READ,
    ("DELETE", "/v1/organization/admin_api_keys/{key_id}"): _WRITE,
    ("GET", "/v1/organization/audit_logs"): _READ,
    ("GET", "/v1/tunesmith/keys"): Scope.KEYS_READ,
    ("POST", "/v1/tunesmith/keys"): Scope.KEYS_WRITE,
    ("DELETE", "/v1/tunesmith/keys/{key_id}"): Scope.KEYS_WRITE,
    ("POST", "/v1/tunesmith/data/report"): Scope.DATA_READ,
    ("POST", "/v1/tunesmith/data/stats"): Scope.DATA_READ,
    ("POST", "/v1/tunesmith/data/index"): Scope.DATA_READ,
    ("POST", "/v1/tunesmith/data/rows"): Scope.DATA_READ,
    ("POST", "/v1/tunesmith/data/tokens"): Scope.DATA_READ,
    ("POST", "/v1/tunesmith/data/fix"): Scope.FILES_WRITE,
    ("POST", "/v1/tunesmith/data/split"): Scope.FILES_WRITE,
    ("POST", "/v1/tunesmith/demo"): Scope.FILES_WRITE,
    ("POST", "/v1/tunesmith/jobs/estimate"): Scope.JOBS_READ,
    ("GET", "/v1/tunesmith/jobs/{job_id}"): Scope.JOBS_READ,
    ("GET", "/v1/tunesmith/jobs/{job_id}/metrics"): Scope.JOBS_READ,
    ("GET", "/v1/tunesmith/jobs/{job_id}/recipe"): Scope.JOBS_READ,
    ("GET", "/v1/tunesmith/jobs/{job_id}/rows/{row}/tokens"): Scope.MODEL_REQUEST,
    ("GET", "/v1/tunesmith/models/{name:path}/files"): Scope.MODELS_READ,
    ("GET", "/v1/tunesmith/events"): Scope.JOBS_READ,
    ("GET", "/v1/tunesmith/status"): Scope.JOBS_READ,
    ("POST", "/v1/tunesmith/session"): Scope.SESSION,
    ("GET", "/v1/tunesmith/session"): Scope.SESSION,
    ("DELETE", "/v1/tunesmith/session"): Scope.SESSION,
    ("GET", "/v1/organization/usage/completions"): _READ,
    ("GET", "/v1/organization/usage/embeddings"): _READ,
    ("GET", "/v1/organization/usage/moderations"): _READ,
    ("GET", f"{_PROJECT}/rate_limits"): _READ,
    ("POST", f"{_PROJECT}/rate_limits/{{rate_limit_id:path}}"): _WRITE,
    ("GET", "/v1/tunesmith/projects/{project_id}/spend_limits"): _READ,
    ("POST", "/v1/tunesmith/projects/{project_id}/spend_limits/{owner_id}"): _WRITE,
    ("GET", "/v1/tunesmith/limits"): Scope.USAGE_READ,
    ("GET", "/v1/organization/costs"): _READ,
    ("GET", "/v1/tunesmith/jobs/{job_id}/cost"): Scope.JOBS_READ,
    ("GET", "/v1/tunesmith/jobs/{job_id}/moderation"): Scope.JOBS_READ,
    ("GET", "/v1/webhook_event_types"): Scope.WEBHOOKS_READ,
    ("POST", "/v1/webhook_endpoints"): Scope.WEBHOOKS_WRITE,
    ("GET", "/v1/webhook_endpoints"): Scope.WEBHOOKS_READ,
    ("GET", "/v1/webhook_endpoints/{endpoint_id}"): Scope.WEBHOOKS_READ,
    ("POST", "/v1/webhook_endpoints/{endpoint_id}"): Scope.WEBHOOKS_WRITE,
    ("DELETE", "/v1/webhook_endpoints/{endpoint_id}"): Scope.WEBHOOKS_WRITE,
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/rotate_secret"): Scope.WEBHOOKS_WRITE,
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/test"): Scope.WEBHOOKS_WRITE,
    ("GET", "/v1/tunesmith/notifications"): Scope.WEBHOOKS_READ,
    ("POST", "/v1/tunesmith/notifications"): Scope.WEBHOOKS_WRITE,
    ("GET", "/v1/tunesmith/webhook_deliveries"): Scope.WEBHOOKS_READ,
    ("POST", "/v1/tunesmith/webhook_deliveries/{delivery_id}/redeliver"): Scope.WEBHOOKS_WRITE,
    ("GET", "/v1/tunesmith/jobs/{job_id}/rows"): Scope.JOBS_READ,
    ("GET", "/v1/tunesmith/jobs/{job_id}/samples"): Scope.JOBS_READ,
}
PUBLIC = frozenset(path for (_, path), scope in ROUTES.items() if scope is None)


def _pattern(path: str) -> re.Pattern[str]:
    """A path with parameters, as the router reads it: one segment each, or with `:path` any."""
    parts = re.split(r"\{(\w+(?::path)?)\}", path)
    names = [".+" if name.endswith(":path") else "[^/]+" for name in parts[1::2]]
    texts = [re.escape(text) for text in parts[::2]]
    return re.compile("".join(sum(zip(texts, [*names, ""], strict=True), ())), re.DOTALL)


_PATTERNS: dict[str, list[tuple[re.Pattern[str], str]]] = {}
for _method, _path in ROUTES:
    if "{" in _path:
        _PATTERNS.setdefault(_method, []).append((_pattern(_path), _path))


def route_of(method: str, path: str) -> str | None:
    """The route that a request asks for, as the table has it; None where nothing is served."""
    if (method, path) in ROUTES:
        return path
    for pattern, route in _PATTERNS.get(method, ()):
        if pattern.fullmatch(path):
            return route
    return None
