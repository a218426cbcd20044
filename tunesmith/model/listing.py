"""A directory that is known by its content: a list of its files with their sizes and hashes.

The sha256 of the list names the directory, so that two directories of one name hold the same bytes.
No torch here: the worker publishes such directories, and `tunesmith doctor` reads them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

LISTING = "files.json"


def write_listing(directory: Path) -> str:
    """Lists every file below the directory; the sha256 of the list, in hex."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    content = {
        str(path.relative_to(directory)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in files
        if path.name != LISTING
    }
    text = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    (directory / LISTING).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def listed_files(directory: Path) -> dict[str, dict[str, Any]]:
    """Path below the directory -> {"size", "sha256"}. Raises OSError or ValueError."""
    content: dict[str, dict[str, Any]] = json.loads((directory / LISTING).read_bytes())
    return content


def problem_of(directory: Path, sha256: str, *, deep: bool) -> str | None:
    """What is wrong with the directory that this hash names; `deep` reads every file."""
    try:
        if sha256_of(directory / LISTING) != sha256:
            return f"{LISTING} is not the one that names it"
        for name, listed in listed_files(directory).items():
            path = directory / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != listed["size"]:
                return f"{name} has another size"
            if deep and sha256_of(path) != listed["sha256"]:
                return f"{name} has other content"
    except (OSError, ValueError) as error:
        return f"{LISTING} cannot be read ({error})"
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
