"""Blobs: nothing half-written is visible, no id leads elsewhere, leftovers go."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.store.blobs import LocalBlobs

ID = "file-abcdefghijklmnopqrstuvwx"


def test_write_read_delete(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    writer = blobs.writer(ID)
    writer.write(b"hello ")
    writer.write(b"world")
    assert not blobs.path(ID).exists()
    assert writer.finish() == (11, hashlib.sha256(b"hello world").hexdigest())
    with blobs.open(ID) as file:
        assert file.read() == b"hello world"
    assert blobs.path(ID) == tmp_path / "wx" / ID
    blobs.delete(ID)
    blobs.delete(ID)
    with pytest.raises(FileNotFoundError):
        blobs.open(ID)


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    writer = blobs.writer(ID)
    writer.write(b"x")
    writer.abort()
    assert list(tmp_path.glob("*/*")) == []


def test_leftovers_are_swept_by_age(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.writer(ID).write(b"x")
    (part,) = tmp_path.glob("*/*.part")
    assert blobs.sweep_unfinished(3600) == 0
    os.utime(part, (1, 1))
    assert list(blobs.ids_older_than(3600)) == []
    assert blobs.sweep_unfinished(3600) == 1
    writer = blobs.writer(ID)
    writer.finish()
    os.utime(blobs.path(ID), (1, 1))
    assert list(blobs.ids_older_than(3600)) == [ID]


@pytest.mark.parametrize(
    "bad", ["../../etc/passwd", "file-..%2f", "/etc/passwd", "file-\0aaaaaaaa"]
)
def test_what_is_no_id_is_no_path(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ValueError, match="not a file id"):
        LocalBlobs(tmp_path).path(bad)


@given(st.text())
def test_no_text_leads_out_of_the_directory(text: str) -> None:
    root = Path("/blobs")
    try:
        path = LocalBlobs(root).path(text)
    except ValueError:
        return
    assert path.resolve().is_relative_to(root)


def test_links_are_not_followed(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    blobs.path(ID).parent.mkdir(parents=True)
    blobs.path(ID).symlink_to(secret)
    with pytest.raises(OSError, match="Too many levels"):
        blobs.open(ID)
