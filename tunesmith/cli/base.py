"""`tunesmith base`: the base models that can be tuned and served, and other names for them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunesmith.cli.options import DataDir, existing_store, require_torch, settings
from tunesmith.cli.people import organization
from tunesmith.cli.problem import CommandFailed
from tunesmith.cli.screen import screen
from tunesmith.ids import SystemClock, SystemRng

if TYPE_CHECKING:
    import sqlalchemy as sa

    from tunesmith.config import Settings
    from tunesmith.model.probe import BaseReport

app = typer.Typer(help="Base models, and other names for them.", no_args_is_help=True)

# No colon: it parts the fields of a tuned model's name. No slash: some clients send it unescaped.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja"]


@app.command()
def add(
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="Hugging Face directory, or a name on the hub.")
    ],
    name: Annotated[
        str, typer.Option(help="What to call it (default: its own name).", show_default=False)
    ] = "",
    alias: Annotated[
        list[str] | None, typer.Option(help="Another name for it; repeatable.", show_default=False)
    ] = None,
    quantize: Annotated[
        Literal["nf4"] | None,
        typer.Option(help="Keep its weights in four bits, also when served.", show_default=False),
    ] = None,
    data: DataDir = None,
) -> None:
    """Register a base model, after checking that it can be tuned and served."""
    require_torch()
    found = settings(data=data)
    own_name = Path(source).expanduser().resolve().name
    chosen = require_name(name or (f"{own_name}-{quantize}" if quantize else own_name))
    directory = (quantised if quantize else locate)(source, chosen, found)

    from tunesmith.model.probe import check_base
    from tunesmith.store.db import open_database
    from tunesmith.store.repo import bases

    report = check_base(directory, chosen)
    show(report)
    if report.info is None or not report.ok:
        raise CommandFailed(f"{chosen} is not registered. Mend what the table says and add again.")
    with open_database(found.data_dir).write() as conn:
        for other in alias or []:
            refuse_taken(conn, require_name(other), chosen)
        bases.insert(conn, report.info)
        note(conn, "base.added", chosen)
        for other in alias or []:
            bases.set_alias(conn, other, chosen, int(SystemClock().now()))
    names = [chosen, *(alias or [])]
    print(f"Ready to be tuned and served: {', '.join(names)}")


@app.command(name="list")
def list_bases(data: DataDir = None) -> None:
    """The registered base models."""
    from rich.table import Table

    from tunesmith.store.repo import bases

    _, db = existing_store(data)
    with db.read() as conn:
        rows, others = bases.list_all(conn), bases.list_aliases(conn)
    table = Table("name", "family", "parameters", "context", "aliases", "path", box=None)
    for row in rows:
        family = f"{row.family} (transformers)" if row.slow else row.family
        names = ", ".join(alias for alias, base in others.items() if base == row.name)
        size, context = f"{row.num_parameters / 1e6:,.1f} M", f"{row.context_length:,}"
        table.add_row(row.name, family, size, context, names, str(row.path))
    screen().print(table)


@app.command()
def remove(name: Annotated[str, typer.Argument()], data: DataDir = None) -> None:
    """Forget a base model and its aliases."""
    from tunesmith.bases import EMBEDDED_NAME
    from tunesmith.store.repo import bases

    if name == EMBEDDED_NAME:
        raise CommandFailed(f"{name} comes with the package and is registered at every start.")
    found, db = existing_store(data)
    with db.write() as conn:
        users = bases.users_of(conn, name)
        if users:
            some = ", ".join(users[:3]) + (", ..." if len(users) > 3 else "")
            raise CommandFailed(f"{name} is in use by {some}. Delete or cancel these first.")
        if not bases.remove(conn, name):
            raise CommandFailed(f"No base {name}. `tunesmith base list` shows all.")
        note(conn, "base.removed", name)
    shutil.rmtree(fetched_directory(found, name), ignore_errors=True)
    print(f"{name} is removed.")


@app.command(name="alias")
def add_alias(
    name: Annotated[str, typer.Argument(help="The name that clients use.")],
    base: Annotated[str, typer.Argument(help="The base it stands for.")],
    data: DataDir = None,
) -> None:
    """Let another name stand for a base; also while the server runs."""
    from tunesmith.store.repo import bases

    _, db = existing_store(data)
    with db.write() as conn:
        target = bases.resolve(conn, base)
        if target is None:
            raise CommandFailed(f"No base {base}. `tunesmith base list` shows all.")
        refuse_taken(conn, require_name(name), target.name)
        bases.set_alias(conn, name, target.name, int(SystemClock().now()))
        note(conn, "alias.set", name, {"base": target.name})
    print(f"{name} now means {target.name}.")


@app.command()
def unalias(name: Annotated[str, typer.Argument()], data: DataDir = None) -> None:
    """Forget an alias. Models that carry its name keep theirs."""
    from tunesmith.store.repo import bases

    _, db = existing_store(data)
    with db.write() as conn:
        if not bases.remove_alias(conn, name):
            raise CommandFailed(f"No alias {name}. `tunesmith base list` shows all.")
        note(conn, "alias.removed", name)
    print(f"{name} is forgotten.")


@app.command()
def grant(
    name: Annotated[str, typer.Argument()],
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Id of the project.")],
    data: DataDir = None,
) -> None:
    """Reserve a base to a project, and to others that it is granted to."""
    base = organization(data).grant_base(name, project)
    print(f"{base} is there for {project}, and for no project that it is not granted to.")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument()],
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Id of the project.")],
    data: DataDir = None,
) -> None:
    """Take a base from a project. With the last one gone it is open to all again."""
    from tunesmith.store.repo import base_grants

    org = organization(data)
    base = org.revoke_base(name, project)
    with org.db.read() as conn:
        left = base_grants.holders(conn, base)
    rest = f"it is left to {', '.join(left)}." if left else "it is open to all again."
    print(f"{base} is taken from {project}; {rest}")


def note(conn: sa.Connection, action: str, name: str, detail: dict[str, str] | None = None) -> None:
    """In the audit log, as the command line's doing."""
    from tunesmith.store.repo import audit_log

    now = int(SystemClock().now())
    audit_log.record(conn, SystemRng(), now, None, action, name, detail)


def require_name(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise CommandFailed(f"{name!r} is no usable name: letters, digits, dot, dash, underscore.")
    return name


def refuse_taken(conn: sa.Connection, alias: str, base: str) -> None:
    from tunesmith.store.repo import bases

    if alias == base or bases.get(conn, alias) is not None:
        raise CommandFailed(f"{alias} is a base of its own; choose another alias.")


def fetched_directory(settings: Settings, name: str) -> Path:
    """Where a base is kept that came from the hub or was quantised."""
    return settings.data_dir / "bases" / name


def quantised(source: str, name: str, settings: Settings) -> Path:
    """A directory of ours with the model in NF4; of what is fetched for it nothing else stays."""
    from tunesmith.errors import BaseModelError
    from tunesmith.model.nf4_write import write_nf4
    from tunesmith.model.threads import wait_briefly
    from tunesmith.store.db import open_database
    from tunesmith.store.repo import bases

    wait_briefly()
    with open_database(settings.data_dir).read() as conn:
        if bases.get(conn, name) is not None:
            raise CommandFailed(
                f"{name} is registered already. `tunesmith base remove {name}`, or choose another "
                "--name."
            )
    target = fetched_directory(settings, name)
    # No base can have such a name.
    download = f".{name}.full"
    try:
        write_nf4(locate(source, download, settings), target)
    except BaseModelError as error:
        raise CommandFailed(str(error)) from None
    shutil.rmtree(fetched_directory(settings, download), ignore_errors=True)
    return target


def locate(source: str, name: str, settings: Settings) -> Path:
    """The model's directory; what is none but could be a hub name is downloaded."""
    directory = Path(source).expanduser()
    if directory.is_dir():
        return directory.resolve()
    if directory.exists() or HUB_NAME.fullmatch(source) is None:
        raise CommandFailed(f"{source} is no directory, and no hub name (ORGANISATION/MODEL).")
    return fetch(source, fetched_directory(settings, name))


def fetch(hub_name: str, target: Path) -> Path:
    """Downloads weights, tokenizer and template; an interrupted download goes on."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise CommandFailed(
            f"{hub_name} is no directory here, and fetching it from the hub needs "
            "`pip install 'tunesmith[hub]'`. Or download it yourself and give the directory."
        ) from None
    try:
        snapshot_download(hub_name, local_dir=target, allow_patterns=HUB_FILES)
    except HfHubHTTPError as error:
        raise CommandFailed(f"The hub refuses {hub_name}: {error}") from None
    except Exception as error:  # of the network: each version of the hub has its HTTP library's
        reason = str(error).partition("\n")[0]
        raise CommandFailed(
            f"{hub_name} is no directory here, and the hub cannot be reached ({reason}). "
            "Copy the model to this machine and give its directory."
        ) from None
    return target


def show(report: BaseReport) -> None:
    from rich.table import Table
    from rich.text import Text

    console = screen()
    info = report.info
    if info is not None:
        path = "through transformers, slower" if info.slow else "own decoder"
        size = f"{info.num_parameters / 1e6:,.1f} M parameters"
        context = f"context {info.context_length:,} tokens"
        console.print(f"{info.name}: {info.family} ({path}), {size}, {context}")
    if not report.findings:
        console.print("All checks passed.", style="green")
        return
    colours = {"error": "red", "warning": "yellow", "info": "blue"}
    table = Table("", "finding", "what to do", box=None, pad_edge=False)
    for finding in report.findings:
        severity = Text(finding.severity, colours[finding.severity])
        table.add_row(severity, finding.message, finding.fix)
    console.print(table)
