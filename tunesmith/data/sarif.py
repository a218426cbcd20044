"""A report as SARIF 2.1.0, which code hosts show beside the lines of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith import __version__
from tunesmith.data.codes import CODES
from tunesmith.data.findings import Finding
from tunesmith.data.report import Report

LEVELS = {"error": "error", "warning": "warning", "info": "note"}
MAX_PLACES = 100


def to_sarif(found: Report) -> dict[str, Any]:
    """Of each finding the first places."""
    reports = [found, *([found.validation] if found.validation else [])]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "tunesmith",
                        "version": __version__,
                        "rules": [_rule(code) for code in CODES],
                    }
                },
                "results": [
                    _result(each, report.path) for report in reports for each in report.findings
                ],
            }
        ],
    }


def _rule(code: str) -> dict[str, Any]:
    info = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": info.title},
        "fullDescription": {"text": info.effect},
        "help": {"text": info.fix},
        "defaultConfiguration": {"level": LEVELS[info.severity]},
    }


def _result(found: Finding, path: Path) -> dict[str, Any]:
    places = [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": path.name},
                "region": {"startLine": line},
            }
        }
        for line in found.lines[:MAX_PLACES] or (1,)
    ]
    return {
        "ruleId": found.code,
        "level": LEVELS[found.severity],
        "message": {"text": f"{found.message} {found.fix}"},
        "locations": places,
    }
