"""Functions in C, compiled when they are first used, for this processor.

There is no compiled file to ship, to keep or to trust: the system's C compiler (`CC`, or `cc`)
takes two seconds.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

# torch's OpenMP is loaded already and serves both.
OPTIONS = ("-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC")
COMPILER_S = 60.0

POINTER, LONG, INT, FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float


def compiled(source: Path, consequence: str) -> ctypes.CDLL | None:
    """The functions of a file; None where they cannot be had, which the log says, and its
    consequence."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-native-") as directory:
        file = Path(directory) / "native.so"
        try:
            command = [*shlex.split(os.environ.get("CC", "cc")), *OPTIONS, str(source), "-o"]
            subprocess.run(
                [*command, str(file)],
                check=True,
                capture_output=True,
                text=True,
                timeout=COMPILER_S,
            )
            return ctypes.CDLL(str(file))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            said = str(getattr(error, "stderr", None) or "").strip()[-500:]
            log.warning(
                "%s cannot be compiled (%s %s): %s; install a C compiler",
                source.name,
                error,
                said,
                consequence,
            )
            return None
