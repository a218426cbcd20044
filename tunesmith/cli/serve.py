"""`tunesmith serve`: everything on one machine, from one small process.

This process opens the data directory, then only watches over the API, the worker and the engine.
It imports neither torch nor the web framework.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tunesmith import __version__
from tunesmith.bases import EMBEDDED_NAME, describe, embedded_directory
from tunesmith.cli.children import Child, say
from tunesmith.cli.wakeups import Wait, wakeups
from tunesmith.config import VLLM_KEY, Settings, as_environment, without_secrets
from tunesmith.errors import TunesmithError
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.model.threads import wait_briefly
from tunesmith.ops.tracing import require_library
from tunesmith.store import links
from tunesmith.store.db import Database, open_database
from tunesmith.store.repo import bases, keys

# How often children are looked at; a death is noticed at once through SIGCHLD.
WATCH_S = 1.0
READY_POLL_S = 0.1
# Beyond the time that requests get to finish: for a process to close what it has open.
GRACE_S = 10.0
BACKLOG = 2048


class ServeError(TunesmithError):
    """The server cannot start; says what to do."""


def run(settings: Settings) -> int:
    """Serves until SIGINT or SIGTERM; the process's exit status. Raises ServeError."""
    os.umask(0o077)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    require_library(settings.otel_url)
    with only_instance(settings), listening(settings) as listener:
        db = open_database(settings.data_dir)
        try:
            key_line = ensure_key(db, settings)
            register_embedded(db)
            link = sign_in_link(db, settings)
        finally:
            db.close()
        url = url_of(listener)
        print(f"Tunesmith {__version__}")
        if link is not None:
            print(f"  web app   {url}/signin#link={link} (signs in once, today)")
        print(f"  base URL  {url}/v1")
        print(f"  API key   {key_line}")
        print(f"  data      {settings.data_dir}")
        print("  stop      Ctrl-C (finishes what is running; twice: at once)", flush=True)
        return Launcher(settings, listener, url).run()


@contextmanager
def only_instance(settings: Settings) -> Iterator[None]:
    """Holds the data directory for this process."""
    settings.run_dir.mkdir(exist_ok=True)
    path = settings.run_dir / "serve.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise ServeError(
                f"Another tunesmith serve (process {owner}) is using {settings.data_dir}. "
                "Stop it first, or choose another directory with --data."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The socket that clients connect to. It stays open while the API process restarts."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ServeError(f"There is no address {settings.host}: {error.strerror}.") from error
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            advice = "Choose another with --port N; 0 picks a free one."
            if error.errno != errno.EADDRINUSE:
                advice = os.strerror(error.errno or 0)
            raise ServeError(
                f"Cannot listen on {settings.host} port {settings.port}. {advice}"
            ) from error
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
        yield listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def ensure_key(db: Database, settings: Settings) -> str:
    """Makes the first key of a data directory; what to print about keys."""
    pepper = keys.load_pepper(settings.data_dir)
    given = settings.api_key
    now = int(SystemClock().now())
    with db.write() as conn:
        if not keys.list_all(conn):
            row, secret = keys.create(
                conn, pepper, SystemRng(), name="first", now=now, secret=given
            )
            if given is not None:
                return f"{row.masked} (from TUNESMITH_API_KEY)"
            return f"{secret} (shown this once; only a hash of it is kept)"
        if given is not None and keys.verify(conn, keys.digest_of(pepper, given), now) is None:
            say("TUNESMITH_API_KEY is ignored: it is read on the first start only.")
    return "as made before (`tunesmith keys create` makes another)"


def sign_in_link(db: Database, settings: Settings) -> str | None:
    """The secret of a link that signs in once, with the oldest key in use."""
    with db.read() as conn:
        usable = [row for row in keys.list_all(conn) if row.revoked_at is None]
    now = int(SystemClock().now())
    return links.make(settings.run_dir, usable[0].id, now) if usable else None


def register_embedded(db: Database) -> None:
    """Registers the base model that comes with the package, or what an upgrade made of it."""
    info = describe(embedded_directory(), EMBEDDED_NAME, SystemClock())
    with db.write() as conn:
        known = bases.get(conn, EMBEDDED_NAME)
        if known is not None and (known.fingerprint, known.path) == (info.fingerprint, info.path):
            return
        users = bases.users_of(conn, EMBEDDED_NAME)
        bases.insert(conn, info)
    if known is not None and known.fingerprint != info.fingerprint and users:
        say(f"{EMBEDDED_NAME} has changed with this version; tune these again: {', '.join(users)}")


class Launcher:
    """Starts the three processes, keeps them alive, and ends them in order."""

    def __init__(self, settings: Settings, listener: socket.socket, url: str) -> None:
        self.settings = settings
        self.listener = listener
        self.url = url
        self.num_stops = 0
        logs = settings.data_dir / "log"
        logs.mkdir(exist_ok=True)
        environment = child_environment(settings)
        fd = listener.fileno()
        self.api = Child(
            "api",
            "tunesmith.api",
            logs / "api.log",
            environment,
            arguments=("--fd", str(fd)),
            inherited=(fd,),
        )
        self.worker = Child("worker", "tunesmith.jobs", logs / "worker.log", environment)
        self.engine = Child(
            "engine",
            "tunesmith.serve",
            logs / "engine.log",
            without_secrets(environment, keep=VLLM_KEY),
        )

    @property
    def children(self) -> tuple[Child, ...]:
        return self.engine, self.worker, self.api

    def run(self) -> int:
        with wakeups(self._on_signal) as wait:
            for child in self.children:
                child.start()
            ready = False
            while self.num_stops == 0:
                if not ready and self._is_ready():
                    ready = True
                    print("ready", flush=True)
                wait(WATCH_S if ready else READY_POLL_S)
                for child in self.children:
                    child.revive()
            say("finishing what is running (Ctrl-C again: stop at once)")
            self.listener.close()
            for child in (self.api, self.worker, self.engine):
                self._end(child, wait)
        say("stopped")
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self.num_stops += 1

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._local_url()}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _local_url(self) -> str:
        """Where this machine reaches the server, also if it listens on every address."""
        return self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")

    def _end(self, child: Child, wait: Wait) -> None:
        """Asks a process to finish; kills it when time is up or the user insists."""
        child.terminate()
        deadline = time.monotonic() + self.settings.drain_s + GRACE_S
        while child.alive:
            left_s = deadline - time.monotonic()
            if self.num_stops > 1 or left_s <= 0:
                say(f"{child.name} has not stopped and is killed")
                child.kill()
            wait(min(max(left_s, 0.05), 0.5))


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting spelled out, and without the first key."""
    environment = dict(os.environ) | as_environment(settings)
    environment["TUNESMITH_DATA"] = str(settings.data_dir)
    environment.pop("TUNESMITH_API_KEY", None)
    wait_briefly(environment)
    environment.setdefault("PYTHONUNBUFFERED", "1")
    return environment
