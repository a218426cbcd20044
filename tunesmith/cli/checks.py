"""What `tunesmith doctor` looks at: the installation, and a data directory from the outside in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from tunesmith import __version__
from tunesmith.config import Settings
from tunesmith.errors import TunesmithError
from tunesmith.jobs.audit import Breach, Check, audit_directory
from tunesmith.store.db import open_database

PACKAGES = (
    ("torch", "torch", "Training and serving"),
    ("safetensors", "torch", "Training and serving"),
    ("transformers", "transformers", "Model families without a decoder of ours"),
    ("huggingface_hub", "hub", "Fetching base models by name"),
)
LOW_DISK_BYTES = 2 << 30
KNOWN_PTH = ("__editable__", "_tunesmith", "distutils-precedence")
NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph"})


def installation() -> Iterator[Check]:
    yield Check(f"tunesmith {__version__}, Python {platform.python_version()}", [])
    for package, extra, what in PACKAGES:
        if importlib.util.find_spec(package):
            yield Check(f"{package} {importlib.metadata.version(package)}", [])
            continue
        text, fix = f"not installed. {what} needs it.", f"pip install 'tunesmith[{extra}]'"
        yield Check(package, [Breach(text, fix, "error" if extra == "torch" else "warning")])
    yield Check("no code that runs at every start of Python", list(startup_code()))


def startup_code() -> Iterator[Breach]:
    """.pth files that run code: how a hijacked package stays unseen."""
    for directory in {Path(entry) for entry in sys.path if entry.endswith("site-packages")}:
        for path in sorted(directory.glob("*.pth")):
            lines = path.read_text(errors="replace").splitlines()
            runs = any(line.startswith(("import ", "import\t")) for line in lines)
            if runs and not path.name.startswith(KNOWN_PTH):
                fix = "Look into it; remove it if no package of yours explains it."
                yield Breach(f"{path} runs code at every start.", fix, "warning")


def directory(settings: Settings, *, deep: bool) -> Iterator[Check]:
    where = settings.data_dir
    if not settings.database_path.exists():
        fix = "Name it with --data, or start `tunesmith serve`, which makes it."
        yield Check(f"data directory {where}", [Breach("not there yet.", fix, "warning")])
        return
    yield Check(f"data directory {where}", [*access(settings), *disk(where)])
    yield from database(settings, deep)


def access(settings: Settings) -> Iterator[Breach]:
    for path in (settings.data_dir, settings.database_path):
        if not os.access(path, os.R_OK | os.W_OK):
            yield Breach(f"{path} cannot be written.", f"chown -R {os.getuid()} {path}")
    pepper = settings.data_dir / "pepper"
    if pepper.exists() and stat.S_IMODE(pepper.stat().st_mode) & 0o077:
        yield Breach(f"{pepper} can be read by others.", f"chmod 600 {pepper}")


def disk(where: Path) -> Iterator[Breach]:
    free = shutil.disk_usage(where).free
    if free < LOW_DISK_BYTES:
        fix = "Make room, or move the directory."
        yield Breach(f"only {free / 1e9:.1f} GB of disk are free.", fix, "warning")
    kind = filesystem(where)
    if kind in NETWORK_FILESYSTEMS:
        fix = "Move it to a local disk: SQLite's locks do not hold here."
        yield Breach(f"it lies on a network file system ({kind}).", fix)


def filesystem(where: Path) -> str:
    """The type of the file system of a path; "" where the system does not tell."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return ""
    entries = [line.split()[1:3] for line in mounts.read_text(errors="replace").splitlines()]
    holding = [(point, kind) for point, kind in entries if where.is_relative_to(point)]
    return max(holding, key=lambda entry: len(entry[0]), default=("", ""))[1]


def database(settings: Settings, deep: bool) -> Iterator[Check]:
    """The invariants; a database that does not even open is one finding."""
    try:
        yield from audit_directory(settings, open_database(settings.data_dir), deep=deep)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error)
        yield Check("database file", [Breach(f"{cause}.", "Stop the server, restore a backup.")])
    except TunesmithError as error:
        yield Check("database file", [Breach(error.message, "Install the newer version.")])
