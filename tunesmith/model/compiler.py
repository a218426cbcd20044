"""Functions in C, compiled when they are first used, for this processor.

There is no compiled file to ship, to keep or to trust: the system's C compiler (`CC`, or `cc`)
takes two seconds. Torch-free: a process may begin with it while it imports torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

# torch's OpenMP is loaded already and serves both. Calls between the functions are meant for these,
# not for what other libraries call so.
OPTIONS = (
    *("-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"),
    "-fno-semantic-interposition",
)
COMPILER_S = 60.0
LEARNING, SERVING = (Path(__file__).with_name(name) for name in ("learning.c", "decoder.c"))

POINTER, LONG, INT, FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float


class _Compilation:
    def __init__(self, source: Path) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="tunesmith-native-")
        self._file = Path(self._directory.name) / "native.so"
        command = [*shlex.split(os.environ.get("CC", "cc")), *OPTIONS, str(source), "-o"]
        self._process = subprocess.Popen(
            [*command, str(self._file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def library(self) -> ctypes.CDLL:
        """Waits; raises OSError or subprocess.SubprocessError."""
        with self._directory, self._process as process:
            try:
                _, said = process.communicate(timeout=COMPILER_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            if process.returncode:
                raise OSError(f"it ended with {process.returncode}: {said.strip()[-500:]}")
            return ctypes.CDLL(str(self._file))


_begun: dict[Path, _Compilation] = {}


def begin(source: Path) -> None:
    """Starts the compiler on a file that `compiled` will be asked for, and does not wait."""
    with contextlib.suppress(OSError, ValueError):
        _begun[source] = _Compilation(source)


def compiled(source: Path, consequence: str) -> ctypes.CDLL | None:
    """The functions of a file; None where they cannot be had, which the log says, and its
    consequence."""
    try:
        compilation = _begun.pop(source, None) or _Compilation(source)
        return compilation.library()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning(
            "%s cannot be compiled (%s): %s; install a C compiler", source.name, error, consequence
        )
        return None
