"""Rare answers of a disk: files that cannot be read, closed, locked or deleted."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import tarfile

import pytest

from nemorun_core.display.logs import Source, follow
from nemorun_core.errors import StoreError, UsageError
from nemorun_core.store import archive, journal, lock, search
from nemorun_core.store.journal import JournalWriter
from nemorun_core.store.layout import Home
from nemorun_core.store.lock import Lock, driver_of


def refuse(number):
    def refused(*args, **options):
        raise OSError(number, os.strerror(number))

    return refused


def test_a_journal_whose_end_cannot_be_mended_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"torn')
    monkeypatch.setattr(journal.os, "ftruncate", refuse(errno.EIO))
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(StoreError, match="Input/output error"):
        JournalWriter(str(path))
    assert len(os.listdir("/dev/fd")) == before


def test_a_writer_may_be_closed_twice(tmp_path):
    writer = JournalWriter(str(tmp_path / "journal.jsonl"))
    writer.close()
    writer.close()


def test_a_lock_that_cannot_be_read_is_a_store_error(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(StoreError, match="cannot read"):
        driver_of(str(tmp_path / "lock"))


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    with pytest.raises(StoreError, match="cannot lock") as caught:
        Lock(str(tmp_path / "lock")).acquire()
    assert "file system with locks" in caught.value.hint


def test_a_child_gives_up_the_locks_of_its_parent(tmp_path):
    held = Lock(str(tmp_path / "lock"))
    assert held.acquire()
    lock._abandon_in_child()  # as after fork(2)
    held.abandon()
    assert Lock(str(tmp_path / "lock")).acquire() is False  # the record names this process, which lives


def test_a_log_that_cannot_be_read_is_a_store_error(tmp_path):
    (tmp_path / "out").mkdir()
    source = Source(str(tmp_path / "out"), b"")
    with pytest.raises(StoreError, match="cannot read"):
        list(source.chunks())


def test_the_last_lines_count_one_that_has_no_end(tmp_path):
    (tmp_path / "out").write_bytes(b"one\ntwo\nthree")
    source = Source(str(tmp_path / "out"), b"")
    source.skip_to_last(2)
    assert b"".join(source.chunks()) == b"two\nthree"


def test_a_line_longer_than_is_kept_is_shown_in_pieces(tmp_path, monkeypatch):
    from nemorun_core.display import logs

    monkeypatch.setattr(logs, "_LONGEST_LINE", 8)
    (tmp_path / "out").write_bytes(b"x" * 20)
    source, written = Source(str(tmp_path / "out"), b"a | "), []
    follow(lambda: [source], written.append, finished=lambda: True, rest=lambda: None)
    assert b"".join(written) == b"a | " + b"x" * 20 + b"\n"


def packed(name, id):
    """Return a tar with one experiment's folder, whose definition says `id`."""
    head = {"schema": 1, "id": id, "title": "x", "nonce": "0", "created": "2026-01-01T00:00:00.000Z", "cwd": "/"}
    text = json.dumps({**head, "jobs": [], "executors": []}, separators=(",", ":")).encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo(f"{name}/experiment.json")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    stream.seek(0)
    return stream


def test_an_archive_whose_folder_and_id_differ_is_refused(tmp_path):
    with pytest.raises(StoreError, match="holds 'other'"):
        archive.unpack(packed("one", "other"), Home(str(tmp_path / "experiments")), "x.tar")
    assert not list(tmp_path.glob("experiments/*"))


def test_an_experiment_that_is_driven_is_not_removed(tmp_path):
    home = Home(str(tmp_path / "experiments"))
    archive.unpack(packed("one", "one"), home, "x.tar")
    folder = home.find("one")
    driver = Lock(folder.lock)
    assert driver.acquire()
    with pytest.raises(StoreError, match="driven by another process"):
        archive.remove(folder)
    driver.release()
    archive.remove(folder)
    with pytest.raises(UsageError):
        home.find("one")


def test_an_id_that_another_process_took_meanwhile_is_refused(tmp_path, monkeypatch):
    home = Home(str(tmp_path))
    home.claim("x", "one")
    monkeypatch.setattr(Home, "_holding", lambda self, id: None)  # it looked before the other one took it
    with pytest.raises(UsageError, match="id='one' is taken by"):
        home.claim("x", "one")


def test_a_title_is_found_among_folders_that_cannot_be_read(tmp_path):
    home = Home(str(tmp_path / "experiments"))
    archive.unpack(packed("x_1", "x_1"), home, "x.tar")
    (tmp_path / "experiments" / "x" / "x_2" / "experiment.json").mkdir(parents=True)
    (tmp_path / "experiments" / "x" / "x_3").mkdir()
    (tmp_path / "experiments" / "x" / "x_3" / "experiment.json").write_text('{"title":"y",')
    assert search.find(home, "x")[0] == "x_1"


def test_a_disk_that_fills_up_while_a_bundle_is_written_is_a_store_error(tmp_path, monkeypatch):
    from nemorun_core.contracts.packager import PackagedFile
    from nemorun_core.store.bundles import digest_of, write_bundle

    (tmp_path / "a").write_text("text")
    files = [PackagedFile("a", str(tmp_path / "a"))]
    digest, _ = digest_of(files)
    monkeypatch.setattr(tarfile.TarFile, "addfile", refuse(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        write_bundle(files, digest, str(tmp_path / "shared"), str(tmp_path / "own"))
    assert list((tmp_path / "shared").iterdir()) == []
