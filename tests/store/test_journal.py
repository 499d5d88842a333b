"""The journal: whole lines for every reader, torn ones cut, nothing lost when the disk is full for a while."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemorun_core.engine.events import Lost, dump
from nemorun_core.engine.loop import read_view
from nemorun_core.errors import StoreError
from nemorun_core.store.journal import JournalReader, JournalWriter
from nemorun_core.store.layout import Folder
from tests.engine.disk import small_disk
from tests.engine.graphs import TIME, define, job


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal.jsonl")


def written(path, *lines):
    writer = JournalWriter(path)
    for line in lines:
        writer.append(line)
    writer.flush()
    writer.close()


def read(path):
    return list(JournalReader(path).lines())


def test_lines_are_read_back_in_order(path):
    written(path, "one", "two")
    written(path, "three")
    assert read(path) == ["one", "two", "three"]


def test_nothing_is_written_before_the_flush(path):
    writer = JournalWriter(path)
    writer.append("one")
    assert read(path) == []
    writer.flush()
    assert read(path) == ["one"]
    writer.close()


def test_only_its_owner_may_read_it(path):
    written(path, "one")
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_reader_waits_for_the_end_of_a_line_and_then_goes_on_where_it_was(path):
    written(path, "one")
    reader = JournalReader(path)
    assert list(reader.lines()) == ["one"]
    with open(path, "a") as stream:
        stream.write("tw")
        stream.flush()
        assert list(reader.lines()) == []
        stream.write("o\nthr")
        stream.flush()
        assert list(reader.lines()) == ["two"]
    assert reader.line_number == 2


def test_a_journal_that_is_not_there_yet_has_no_lines(path):
    assert read(path) == []


@pytest.mark.parametrize("torn", ['{"event":"lo', "x" * 3_000_000, "\0\0\0"], ids=["half", "three megabytes", "zeros"])
@pytest.mark.parametrize("whole", [[], ["one", "two"]], ids=["alone", "after others"])
def test_a_torn_last_line_is_cut_before_the_first_append(path, whole, torn):
    written(path, *whole)
    with open(path, "a") as stream:
        stream.write(torn)
    written(path, "next")
    assert read(path) == [*whole, "next"]
    assert os.path.getsize(path) == sum(len(line) + 1 for line in [*whole, "next"])


def test_a_reader_alone_cuts_nothing(path):
    written(path, "one")
    with open(path, "a") as stream:
        stream.write("torn")
    before = os.path.getsize(path)
    assert read(path) == ["one"]
    assert os.path.getsize(path) == before


LINES = st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(lines=LINES, more=LINES, cut=st.integers(0, 120))
def test_a_journal_torn_at_any_byte_keeps_every_whole_line_and_takes_new_ones(tmp_path_factory, lines, more, cut):
    path = str(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    written(path, *lines)
    os.truncate(path, min(cut, os.path.getsize(path)))
    whole = Path(path).read_text().split("\n")[:-1]
    assert whole == lines[: len(whole)]
    assert read(path) == whole
    written(path, *more)
    assert read(path) == whole + more


def test_a_full_disk_loses_no_line_and_leaves_no_half_one(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        path = str(disk.path / "journal.jsonl")
        written(path, "one")
        writer = JournalWriter(path)
        disk.fill()
        writer.append("x" * 20_000)
        with pytest.raises(StoreError, match="No space left"):
            writer.flush()
        assert read(path) == ["one"]
        writer.append("three")
        disk.free()
        writer.flush()
        writer.close()
        assert read(path) == ["one", "x" * 20_000, "three"]


@pytest.mark.parametrize("allowed", [0, 1, 7])
def test_a_write_that_stops_in_the_middle_is_undone_and_done_again(path, monkeypatch, allowed):
    writer = JournalWriter(path)
    writer.append("0123456789")
    real, left = os.write, [allowed]

    def stop_after(handle, data):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(handle, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(os, "write", stop_after)
    with pytest.raises(StoreError):
        writer.flush()
    monkeypatch.undo()
    assert os.path.getsize(path) == 0
    writer.flush()
    writer.close()
    assert read(path) == ["0123456789"]


def test_short_writes_are_gone_on_with(path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
    written(path, "0123456789", "abc")
    assert read(path) == ["0123456789", "abc"]


def test_a_flush_that_syncs_asks_the_disk(path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    writer = JournalWriter(path)
    writer.append("one")
    writer.flush()
    assert synced == []
    writer.flush(sync=True)
    assert len(synced) == 1
    writer.close()


def test_a_journal_that_cannot_be_opened_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="cannot open"):
        JournalWriter(str(tmp_path / "gone" / "journal.jsonl"))


# As events.

GOOD = dump(Lost("a", 1), TIME, 1)


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "",
        '{"event":"lost"}',
        GOOD.replace('"a"', '"unknown"'),
        GOOD.replace("lost", "found"),
        '{"event":"observed","time":"t","epoch":1,"job":"a","attempt":0,"incarnation":0,"members":[]}',
    ],
)
def test_a_corrupt_line_elsewhere_is_a_store_error_with_file_and_line(tmp_path, bad):
    folder = Folder(str(tmp_path))
    written(folder.journal, GOOD, GOOD, bad, GOOD)
    with pytest.raises(StoreError) as caught:
        read_view(define(job("a")), folder)
    assert f"{folder.journal}, line 3:" in caught.value.message
    assert caught.value.hint


def test_an_observation_of_too_many_members_is_a_corrupt_line(tmp_path):
    folder = Folder(str(tmp_path))
    line = '{"event":"observed","time":"t","epoch":1,"job":"a","attempt":0,"incarnation":0,"members":[%s]}'
    running = '{"state":"RUNNING"}'
    written(folder.journal, line % running, line % f"{running},{running}")
    with pytest.raises(StoreError, match="line 2:"):
        read_view(define(job("a")), folder)


def test_a_torn_last_line_is_no_error_for_a_reader(tmp_path):
    folder = Folder(str(tmp_path))
    written(folder.journal, GOOD)
    with open(folder.journal, "a") as stream:
        stream.write(GOOD[:20])
    read_view(define(job("a")), folder)
