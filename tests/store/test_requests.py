"""Requests to the driver: durable, in order, and it wakes."""

from __future__ import annotations

import contextlib
import errno
import os
import select

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemorun_core.errors import StoreError
from nemorun_core.store.requests import Request, Requests
from tests.engine.disk import small_disk


@pytest.fixture
def requests(tmp_path):
    return Requests(str(tmp_path / "requests"))


@pytest.fixture
def pipe(requests):
    reading, writing = requests.open_pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def is_awake(reading):
    return bool(select.select([reading], [], [], 0)[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(jobs=st.lists(st.text(max_size=10), max_size=4).map(tuple), detail=st.text(max_size=10))
def test_a_request_is_read_back_equal(tmp_path_factory, jobs, detail):
    requests = Requests(str(tmp_path_factory.mktemp("requests")))
    request = Request(jobs, "by user", detail)
    path = requests.leave(request)
    assert requests.pending() == [(path, request)]


def test_requests_come_oldest_first(requests):
    left = [requests.leave(Request((str(number),), "by user")) for number in range(20)]
    assert [path for path, _ in requests.pending()] == left


def test_a_request_is_its_owners_alone(requests):
    path = requests.leave(Request(("a",), "by user"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700


def test_a_request_is_synced_before_anybody_is_woken(requests, pipe, monkeypatch):
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(is_awake(pipe)))
    requests.leave(Request(("a",), "by user"))
    assert seen
    assert not any(seen)
    assert is_awake(pipe)


def test_a_driver_is_woken(requests, pipe):
    assert not is_awake(pipe)
    requests.leave(Request(("a",), "by user"))
    assert os.read(pipe, 10) == b"!"


def test_a_request_can_be_left_where_nobody_drives(requests):
    requests.leave(Request(("a",), "by user"))
    assert len(requests.pending()) == 1


def test_a_pipe_that_a_dead_driver_left_holds_nobody_up(requests):
    for end in requests.open_pipe():
        os.close(end)
    requests.leave(Request(("a",), "by user"))
    assert len(requests.pending()) == 1


def test_a_driver_that_does_not_read_holds_nobody_up(requests, pipe):
    path = os.path.join(os.path.dirname(requests.leave(Request(("a",), "by user"))), "wake")
    writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            continue
    os.close(writing)
    requests.leave(Request(("b",), "by user"))
    assert len(requests.pending()) == 2


def test_a_pipe_stays_open_when_a_requester_closes_its_side(requests, pipe):
    requests.leave(Request(("a",), "by user"))
    os.read(pipe, 10)
    assert not is_awake(pipe)


def test_where_there_are_no_named_pipes_the_driver_still_has_one_of_its_own(requests, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "mkfifo", refuse)
    reading, writing = requests.open_pipe()
    os.write(writing, b".")
    assert os.read(reading, 10) == b"."
    os.close(reading)
    os.close(writing)


def test_a_settled_request_is_gone_and_may_be_settled_again(requests):
    path = requests.leave(Request(("a",), "by user"))
    requests.settle(path)
    requests.settle(path)
    assert requests.pending() == []


def test_nothing_was_asked_where_the_disk_refused(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        requests = Requests(str(disk.path / "requests"))
        requests.leave(Request(("a",), "by user"))
        disk.fill()
        with pytest.raises(StoreError, match="No space left"):
            requests.leave(Request(("b",) * 1000, "by user"))
        assert [request.jobs for _, request in requests.pending()] == [("a",)]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"jobs":["a"]}', '{"jobs":7,"kind":"by user","detail":""}'])
def test_an_unreadable_request_is_a_store_error_that_names_the_file(requests, text):
    path = requests.leave(Request(("a",), "by user"))
    with open(path, "w") as stream:
        stream.write(text)
    with pytest.raises(StoreError) as caught:
        requests.pending()
    assert path in caught.value.message


def test_files_of_others_in_the_folder_are_no_requests(requests):
    folder = os.path.dirname(requests.leave(Request(("a",), "by user")))
    for name in ("x.json.123.tmp", "README", "wake"):
        with open(os.path.join(folder, name), "w") as stream:
            stream.write("{")
    assert len(requests.pending()) == 1
