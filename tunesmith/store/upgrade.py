"""Brings a database to the current revision. Imported only when one is not (slow to import)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from tunesmith.store.db import HEAD, SchemaError
from tunesmith.store.tables import metadata


def scripts() -> ScriptDirectory:
    """The migrations that come with the package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def upgrade(engine: sa.Engine, data_dir: Path) -> None:
    """All missing steps in one transaction; an existing database is copied aside first.

    Raises SchemaError for a database of a newer version.
    """
    directory = scripts()
    with engine.connect() as conn:
        found = MigrationContext.configure(conn).get_current_revision()
    if found is not None:
        _refuse_newer(directory, found)
        _back_up(engine, data_dir / f"tunesmith.db.{found}")
    with _unchecked(engine) as conn, conn.begin():
        options = {
            "fn": lambda revision, _: directory._upgrade_revs(HEAD, revision),
            # Lends its naming convention to the constraints that migrations leave unnamed.
            "target_metadata": metadata,
        }
        context = MigrationContext.configure(conn, opts=options)
        with Operations.context(context):
            context.run_migrations()
        dangling = conn.exec_driver_sql("PRAGMA foreign_key_check").all()
        if dangling:
            raise SchemaError(f"The upgrade to schema {HEAD} would break references: {dangling[0]}")


@contextmanager
def _unchecked(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that may copy and replace a table that others refer to, as SQLite demands."""
    with engine.connect() as conn:
        # Outside of any transaction, where alone it has an effect.
        conn.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        try:
            yield conn
        finally:
            conn.connection.cursor().execute("PRAGMA foreign_keys=ON")


def _refuse_newer(directory: ScriptDirectory, found: str) -> None:
    try:
        directory.get_revision(found)
    except CommandError as error:
        raise SchemaError(
            f"The database has schema {found}, which this version of tunesmith does not know "
            f"(it reads {HEAD}). Start it with the version that wrote it, or a newer one."
        ) from error


def _back_up(engine: sa.Engine, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.connection.cursor().execute("VACUUM INTO ?", (str(copy),))
