"""Cuts the published OpenAPI file down to what this server serves, with all it refers to, and the
list of all its operations.

    python tests/contract/extract.py openapi.yaml > tests/contract/openai.json

Descriptions and examples are dropped; nothing else is changed. See NOTICE.md for the source.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

PATHS = (
    "/files",
    "/files/{file_id}",
    "/files/{file_id}/content",
    "/fine_tuning/jobs",
    "/fine_tuning/jobs/{fine_tuning_job_id}",
    "/fine_tuning/jobs/{fine_tuning_job_id}/cancel",
    "/fine_tuning/jobs/{fine_tuning_job_id}/pause",
    "/fine_tuning/jobs/{fine_tuning_job_id}/resume",
    "/fine_tuning/jobs/{fine_tuning_job_id}/events",
    "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
    "/models",
    "/models/{model}",
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/moderations",
)
# Of the administration everything.
PREFIX = "/organization/"
METHODS = ("get", "post", "delete")
# Reached from no path: errors, and the chunks of a stream.
SCHEMAS = ("ErrorResponse", "CreateChatCompletionStreamResponse")
PROSE = ("description", "example", "examples", "title", "summary", "externalDocs")


def bare(value: Any) -> Any:
    """`value` without prose; a property that is called "title" stays."""
    if isinstance(value, dict):
        return {
            key: bare(each)
            for key, each in value.items()
            if not (key in PROSE and (isinstance(each, str) or key.startswith("example")))
        }
    if isinstance(value, list):
        return [bare(each) for each in value]
    return value


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        target = value.get("$ref")
        found = {target.rsplit("/", 1)[-1]} if isinstance(target, str) else set()
        return found.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def success(operation: dict[str, Any]) -> dict[str, Any]:
    return {"responses": {"200": bare(operation["responses"]["200"])}}


def extract(source: dict[str, Any]) -> dict[str, Any]:
    """The paths' responses and every schema that these reach."""
    administration = [path for path in source["paths"] if path.startswith(PREFIX)]
    paths = {
        path: {
            method: success(operation)
            for method, operation in source["paths"][path].items()
            if method in METHODS
        }
        for path in (*PATHS, *administration)
    }
    operations = [
        [method, path]
        for path, found in sorted(source["paths"].items())
        for method in METHODS
        if method in found
    ]
    schemas: dict[str, Any] = {}
    waiting = set(SCHEMAS) | references(paths)
    while waiting:
        name = waiting.pop()
        schemas[name] = bare(source["components"]["schemas"][name])
        waiting |= references(schemas[name]) - schemas.keys()
    return {
        "operations": operations,
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


if __name__ == "__main__":
    published = yaml.load(Path(sys.argv[1]).read_text(), Loader=yaml.CSafeLoader)
    json.dump(extract(published), sys.stdout, indent=1)
