"""Queries: paging, filters, tombstones, keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.callers import OWNER
from tests.unit.jobs.world import World, base_info
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.errors import BadRequest
from tunesmith.ids import SystemRng
from tunesmith.jobs.commands import cancel_job
from tunesmith.store.repo import bases, events, files, jobs, keys
from tunesmith.store.repo.events import NewEvent


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.db.close()


def test_files_page_newest_first_and_past_deleted_ones(world: World) -> None:
    ids = [world.file_id, *(world.add_file() for _ in range(4))][::-1]
    seen: list[str] = []
    after = None
    with world.db.write() as conn:
        while True:
            page = files.page(conn, DEFAULT_PROJECT, after=after, limit=2)
            seen += [row.id for row in page.rows]
            # What `for file in client.files.list(): client.files.delete(file.id)` does.
            for row in page.rows:
                assert files.mark_deleted(conn, DEFAULT_PROJECT, row.id, 5)
            if not page.has_more:
                break
            after = page.rows[-1].id
        assert seen == ids
        assert not files.mark_deleted(conn, DEFAULT_PROJECT, ids[0], 6)
        assert files.get(conn, DEFAULT_PROJECT, ids[0]) is None
        assert files.page(conn, DEFAULT_PROJECT).rows == []


def test_files_by_purpose_and_order(world: World) -> None:
    other = world.add_file(purpose="batch")
    last = world.add_file()
    with world.db.read() as conn:
        rows = files.page(conn, DEFAULT_PROJECT, purpose="fine-tune", order="asc").rows
        assert [row.id for row in rows] == [world.file_id, last]
        assert [row.id for row in files.page(conn, DEFAULT_PROJECT, purpose="batch").rows] == [
            other
        ]


def test_an_unknown_cursor_is_refused(world: World) -> None:
    with world.db.read() as conn:
        with pytest.raises(BadRequest, match="file-none"):
            files.page(conn, DEFAULT_PROJECT, after="file-none")
        with pytest.raises(BadRequest):
            jobs.page(conn, DEFAULT_PROJECT, after="ftjob-none")


def test_a_deleted_file_keeps_its_blob_while_a_job_lives(world: World) -> None:
    job = world.create()
    with world.db.write() as conn:
        files.mark_deleted(conn, DEFAULT_PROJECT, world.file_id, 5)
        assert files.disposable(conn) == []
    cancel_job(world.db, world.clock, OWNER, job.id)
    with world.db.write() as conn:
        assert files.disposable(conn) == [world.file_id]
        assert files.drop_tombstones(conn, 10) == 0
        files.mark_disposed(conn, [world.file_id])
        assert files.known_blobs(conn) == set()
        assert files.drop_tombstones(conn, 5) == 0
        assert files.drop_tombstones(conn, 6) == 1


def test_files_expire(world: World) -> None:
    with world.db.write() as conn:
        row = files.FileRow(
            "file-" + "e" * 24, DEFAULT_PROJECT, "x", 1, "fine-tune", "0", 1, expires_at=100
        )
        files.insert(conn, row)
        assert files.expire(conn, 99) == 0
        assert files.expire(conn, 100) == 1
        assert files.get(conn, DEFAULT_PROJECT, row.id) is None


def test_jobs_page_newest_first_with_filters(world: World) -> None:
    plain = world.create()
    red = world.create(metadata={"colour": "red", 'odd"key.$[0]': "%"})
    blue = world.create(metadata={"colour": "blue"})
    with world.db.read() as conn:
        page = jobs.page(conn, DEFAULT_PROJECT, limit=2)
        assert ([row.id for row in page.rows], page.has_more) == ([blue.id, red.id], True)
        page = jobs.page(conn, DEFAULT_PROJECT, after=red.id)
        assert ([row.id for row in page.rows], page.has_more) == ([plain.id], False)
        found = jobs.page(
            conn, DEFAULT_PROJECT, metadata={"colour": "red", 'odd"key.$[0]': "%"}
        ).rows
        assert [row.id for row in found] == [red.id]
        assert [row.id for row in jobs.page(conn, DEFAULT_PROJECT, without_metadata=True).rows] == [
            plain.id
        ]
        assert jobs.count_by_status(conn) == {"validating_files": 3}


def test_events_are_numbered_without_gaps_and_dropped_when_repeated(world: World) -> None:
    job = world.create()
    new = [NewEvent(f"step:{number}", "Step", 10 + number) for number in range(3)]
    with world.db.write() as conn:
        assert events.append(conn, SystemRng(), job.id, new[:2]) == 2
        assert events.append(conn, SystemRng(), job.id, [*new, new[0]]) == 1
        rows = events.after_seq(conn, job.id)
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    assert [row.key for row in rows][2:] == ["step:0", "step:1", "step:2"]


def test_event_times_never_run_backwards(world: World) -> None:
    job = world.create()
    with world.db.write() as conn:
        events.append(conn, SystemRng(), job.id, [NewEvent("late", "", 2_000_000_000)])
        events.append(conn, SystemRng(), job.id, [NewEvent("early", "", 5)])
    times = [event.created_at for event in world.events(job.id)]
    assert times == sorted(times)


def test_many_events_at_once(world: World) -> None:
    job = world.create()
    new = [NewEvent(f"step:{number}", "Step", 1) for number in range(1700)]
    with world.db.write() as conn:
        assert events.append(conn, SystemRng(), job.id, new) == 1700
        assert events.append(conn, SystemRng(), job.id, new) == 0


def test_event_pages_stay_disjoint_while_events_arrive(world: World) -> None:
    job = world.create()
    seen: list[str] = []
    after = None
    for number in range(20):
        with world.db.write() as conn:
            events.append(conn, SystemRng(), job.id, [NewEvent(f"n:{number}", "", 1)])
            page = events.page(conn, job.id, after=after, limit=1)
        seen += [row.id for row in page.rows]
        after = seen[-1]
        if not page.has_more:
            break
    assert len(seen) == len(set(seen)) == 3


def test_bases_and_aliases(world: World) -> None:
    with world.db.write() as conn:
        bases.insert(conn, base_info("second", Path("/elsewhere")))
        bases.set_alias(conn, "gpt-4o-mini", "tiny", 1)
        bases.set_alias(conn, "gpt-4o-mini", "second", 2)
        assert bases.list_aliases(conn) == {"gpt-4o-mini": "second"}
        found = bases.resolve(conn, "gpt-4o-mini")
        assert found is not None
        assert (found.name, found.path) == ("second", Path("/elsewhere"))
        bases.insert(conn, base_info("second", Path("/moved")))
        assert [info.path for info in bases.list_all(conn)] == [Path("/nowhere"), Path("/moved")]
        assert bases.resolve(conn, "other") is None
        assert bases.remove(conn, "second")
        assert bases.list_aliases(conn) == {}
        assert not bases.remove_alias(conn, "gpt-4o-mini")


def test_an_alias_needs_its_base(world: World) -> None:
    with pytest.raises(sa.exc.IntegrityError), world.db.write() as conn:
        bases.set_alias(conn, "gpt-4o-mini", "nowhere", 1)


def test_what_a_base_is_needed_for(world: World) -> None:
    job = world.create()
    with world.db.write() as conn:
        assert bases.users_of(conn, "tiny") == [job.id]
        assert bases.users_of(conn, "other") == []


def test_keys_open_until_revoked(world: World) -> None:
    pepper = keys.load_pepper(world.settings.data_dir)
    assert keys.load_pepper(world.settings.data_dir) == pepper
    assert (world.settings.data_dir / "pepper").stat().st_mode & 0o777 == 0o600
    with world.db.write() as conn:
        row, secret = keys.create(conn, pepper, SystemRng(), name="first", now=5)
        assert secret.startswith("sk-")
        assert keys.verify(conn, keys.digest_of(pepper, secret), 6) == row
        for wrong in ("", "sk-", secret[:-1], secret + "x", "\udc80"):
            assert keys.verify(conn, keys.digest_of(pepper, wrong), 6) is None
        assert keys.verify(conn, keys.digest_of(b"other pepper", secret), 6) is None
        assert keys.needs_touch(row, 5)
        keys.touch(conn, row.id, 5)
        (touched,) = keys.list_all(conn)
        assert not keys.needs_touch(touched, 64)
        assert keys.needs_touch(touched, 65)
        assert keys.revoke(conn, row.id, 70)
        assert not keys.revoke(conn, row.id, 71)
        assert keys.verify(conn, keys.digest_of(pepper, secret), 6) is None


def test_the_database_holds_no_key(world: World) -> None:
    pepper = keys.load_pepper(world.settings.data_dir)
    with world.db.write() as conn:
        row, secret = keys.create(
            conn, pepper, SystemRng(), name="own", now=5, secret="my-own-secret-of-length"
        )
    world.db.close()
    for path in world.settings.data_dir.glob("tunesmith.db*"):
        assert secret.encode() not in path.read_bytes()
    assert secret not in row.masked
