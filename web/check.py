"""What must hold of the web app: `python web/check.py`. Needs Node, and the built files.

The lock has a hash for every package, the API's types are those of its document, the sources pass
the strict compiler, the built files keep within their budgets and hold no source maps. `--install`
only gets what checks and tests need.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import build
from document import document

SCHEMA = build.WEB / "src" / "api" / "schema.ts"
MAX_FIRST_LOAD_BYTES = 350_000
MAX_STATIC_BYTES = 3_000_000
# Loaded by the first page beside what index.html names: the fonts of its text.
FIRST_FONTS = ("inter-latin-wght", "jetbrains-mono-latin-wght")


def write_types(path: Path) -> None:
    """The document's types, as TypeScript."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as written:
        json.dump(document(), written, sort_keys=True)
        written.flush()
        _node("openapi-typescript/bin/cli.js", written.name, "--output", str(path))


def check_types() -> None:
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory) / "schema.ts"
        write_types(fresh)
        if fresh.read_text() != SCHEMA.read_text():
            sys.exit("web/src/api/schema.ts is not what the API says now: `make ui-types`.")


def check_lock() -> None:
    """Without a hash, a package of another system is not installed there."""
    packages = json.loads(build.LOCK.read_text())["packages"]
    bare = [
        name
        for name, package in packages.items()
        if name and not (package.get("integrity") or package.get("inBundle"))
    ]
    if bare:
        sys.exit(f"package-lock.json has no hash for {', '.join(bare)}: lock versions that have.")


def first_load() -> int:
    """Bytes, gzipped as served, from an empty cache to the first page."""
    page = (build.OUT / "index.html").read_text()
    named = [build.OUT / name for name in re.findall(r'(?:src|href)="/([^"]+)"', page)]
    fonts = [path for path in build.OUT.glob("assets/*.woff2") if path.name.startswith(FIRST_FONTS)]
    home = list(build.OUT.glob("assets/Home-*.js"))
    packed = sum(len(gzip.compress(path.read_bytes())) for path in [*named, *home])
    return packed + sum(path.stat().st_size for path in fonts)


def check_size() -> None:
    files = [path for path in build.OUT.rglob("*") if path.is_file()]
    static = sum(path.stat().st_size for path in files)
    first = first_load()
    print(f"first load {first / 1000:.0f} kB gzipped, all files {static / 1000:.0f} kB")
    if first > MAX_FIRST_LOAD_BYTES or static > MAX_STATIC_BYTES:
        sys.exit(f"The budgets are {MAX_FIRST_LOAD_BYTES} and {MAX_STATIC_BYTES} bytes.")
    if maps := [path.name for path in files if path.suffix == ".map"]:
        sys.exit(f"Source maps do not belong into the wheel: {maps}")


def install() -> None:
    """What only checks and tests need is left out where the app is merely built."""
    _, npm = build.find_node()
    tools = [build.WEB / "node_modules" / name for name in ("axe-core", "openai", "typescript")]
    if not all(tool.is_dir() for tool in tools):
        command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=build.WEB, check=True, stdout=subprocess.DEVNULL)


def _node(script: str, *arguments: str) -> None:
    install()
    node, _ = build.find_node()
    command = [node, str(build.WEB / "node_modules" / script), *arguments]
    done = subprocess.run(command, cwd=build.WEB, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    if "--install" in sys.argv:
        install()
    elif "--write-types" in sys.argv:
        write_types(SCHEMA)
    else:
        check_lock()
        check_types()
        _node("typescript/bin/tsc", "--noEmit")
        check_size()
