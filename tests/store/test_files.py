"""Files that are whole or not there, also when the disk refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from nemorun_core.errors import StoreError
from nemorun_core.store.files import make_folder, read_text, write_atomically
from tests.engine.disk import small_disk


def test_a_file_is_read_back_and_only_its_owner_may(tmp_path):
    path = tmp_path / "record"
    write_atomically(str(path), b"hello\n")
    assert read_text(str(path)) == "hello\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_and_those_above_it_are_its_owners_alone(tmp_path):
    make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_missing_file_reads_as_none(tmp_path):
    assert read_text(str(tmp_path / "none")) is None


def test_bytes_that_are_no_text_are_replaced_and_not_fatal(tmp_path):
    (tmp_path / "record").write_bytes(b"a\xffb")
    assert read_text(str(tmp_path / "record")) == "a\ufffdb"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_the_disk_refuses_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "record"
    write_atomically(str(path), b"before")

    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StoreError, match=r"cannot write .*record: No space left on device\."):
        write_atomically(str(path), b"after")
    monkeypatch.undo()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["record"]


def test_a_full_disk_is_named_with_what_to_do(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        with pytest.raises(StoreError) as caught:
            write_atomically(str(disk.path / "record"), b"x" * 10_000)
        assert "No space left" in caught.value.message
        assert "Free some disk space" in caught.value.hint
        assert os.listdir(disk.path) == ["filler"]


def test_a_read_only_file_system_is_named_with_what_to_do(tmp_path):
    with small_disk(tmp_path / "disk", options=",ro") as disk:
        with pytest.raises(StoreError) as caught:
            write_atomically(str(disk.path / "record"), b"x")
        assert "NEMORUN_HOME" in caught.value.hint


def test_a_file_where_a_folder_belongs_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        make_folder(str(tmp_path / "file" / "folder"))


def test_readers_see_all_of_a_file_or_what_was_there_before(tmp_path):
    path = tmp_path / "record"
    write_atomically(str(path), b"a" * 100_000)
    script = """
import sys
from nemorun_core.store.files import write_atomically
print(flush=True)
for count in range(300):
    write_atomically(sys.argv[1], (b"a" if count % 2 else b"b") * 100_000, sync=False)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while writer.poll() is None:
            content = path.read_bytes()
            assert content in (b"a" * 100_000, b"b" * 100_000)
    assert writer.returncode == 0
