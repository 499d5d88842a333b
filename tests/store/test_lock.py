"""Who may drive: one process at a time, told by the kernel, by the record and, for other machines, by the heartbeat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemorun_core.contracts.host import boot_id, hostname, process_started
from nemorun_core.errors import StoreError
from nemorun_core.store import lock as module
from nemorun_core.store.lock import STALE_SECONDS, Lock, Overtaken, driver_of
from tests.engine.disk import small_disk


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "lock")


@pytest.fixture
def lock(path):
    lock = Lock(path)
    assert lock.acquire()
    yield lock
    lock.release()


class Other:
    """A driver in a process of its own; does what it is told, line by line."""

    SCRIPT = """
import os, subprocess, sys
from nemorun_core.errors import StoreError
from nemorun_core.store.lock import Lock
lock = Lock(sys.argv[1])
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except StoreError as error:
        print(type(error).__name__, flush=True)
"""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def tell(self, expression):
        print(expression, file=self.process.stdin, flush=True)

    def answer(self):
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, expression):
        self.tell(expression)
        return self.answer()

    def kill(self):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def other(path):
    others = []

    def start():
        others.append(Other(path))
        return others[-1]

    yield start
    for one in others:
        one.kill()


def write(path, **changes):
    """Leave the record of a driver whose process holds no lock any more."""
    record = {
        "host": hostname(),
        "boot": boot_id(),
        "pid": os.getpid(),
        "started": process_started(os.getpid()),
        "epoch": 7,
        "heartbeat": 1000.0,
        "ended": False,
        **changes,
    }
    with open(path, "w") as stream:
        stream.write(json.dumps(record).ljust(511) + "\n")


def dead_pid():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


# One driver.


def test_the_first_driver_has_epoch_1_and_is_told_to_all(path, lock):
    driver = driver_of(path)
    assert driver is not None
    assert (lock.epoch, driver.epoch, driver.pid, driver.host) == (1, 1, os.getpid(), hostname())
    assert driver.is_alive_here()
    lock.check()


def test_the_record_is_its_owners_alone(path, lock):
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_second_driver_of_this_process_is_refused(path, lock):
    assert Lock(path).acquire() is False
    lock.check()


def test_a_second_driver_of_another_process_is_refused_while_the_first_lives(lock, other):
    assert other().ask("lock.acquire()") == "False"
    lock.check()


def test_of_racing_drivers_one_wins(other):
    others = [other() for _ in range(6)]
    for one in others:
        one.ask("0")
    for one in others:
        one.tell("lock.acquire()")
    assert sorted(one.answer() for one in others) == ["False"] * 5 + ["True"]


def test_a_lock_given_back_is_taken_with_the_next_epoch(path, lock):
    lock.release()
    driver = driver_of(path)
    assert driver is not None
    assert driver.ended
    assert not driver.is_alive_here()
    again = Lock(path)
    assert again.acquire()
    assert again.epoch == 2
    again.release()


def test_a_lock_may_be_given_back_twice(lock):
    lock.release()
    lock.release()


def test_the_lock_of_a_killed_driver_is_free_at_once(path, other):
    first = other()
    assert first.ask("lock.acquire()") == "True"
    first.kill()
    driver = driver_of(path)
    assert driver is not None
    assert not driver.is_alive_here()
    second = Lock(path)
    assert second.acquire()
    assert second.epoch == 2
    second.release()


def test_there_is_no_driver_before_the_first(path):
    assert driver_of(path) is None


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b"\0" * 512, b"7", b"\xff" * 100, b'{"pid": 1}'])
def test_a_rubbish_record_is_no_driver_and_keeps_nobody_out(path, rubbish):
    with open(path, "wb") as stream:
        stream.write(rubbish)
    assert driver_of(path) is None
    lock = Lock(path)
    assert lock.acquire()
    lock.check()
    lock.release()


def test_looking_at_the_record_gives_no_lock_away(path, lock, other):
    driver_of(path)
    assert other().ask("lock.acquire()") == "False"


def test_a_folder_that_is_gone_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="cannot open"):
        Lock(str(tmp_path / "gone" / "lock")).acquire()


def test_a_driver_whose_folder_is_removed_is_told(path, lock):
    os.unlink(path)
    with pytest.raises(StoreError, match="was removed"):
        lock.check()


def test_a_lock_on_a_full_disk_is_not_half_taken(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        disk.fill()
        lock = Lock(str(disk.path / "lock"))
        with pytest.raises(StoreError, match="No space left"):
            lock.acquire()
        disk.free()
        assert lock.acquire()
        lock.release()


def test_a_driver_whose_disk_became_full_keeps_its_heart_beating(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        lock = Lock(str(disk.path / "lock"))
        assert lock.acquire()
        disk.fill()
        lock.beat()
        lock.release()


# Children.


def test_a_forked_child_does_not_keep_the_lock(path, other):
    parent = other()
    assert parent.ask("lock.acquire()") == "True"
    child = int(parent.ask("os.fork() or (__import__('signal').pause())"))
    parent.kill()
    try:
        lock = Lock(path)
        deadline = time.monotonic() + 10
        while not lock.acquire():  # until the child has come to let go
            assert time.monotonic() < deadline
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_ends_does_not_give_the_lock_away(path, other):
    parent = other()
    assert parent.ask("lock.acquire()") == "True"
    assert parent.ask("os.waitpid(os.fork() or os._exit(0), 0)[1]") == "0"
    assert parent.ask("lock.check()") == "None"
    assert Lock(path).acquire() is False


def test_a_program_started_by_the_driver_does_not_keep_the_lock(path, other):
    parent = other()
    assert parent.ask("lock.acquire()") == "True"
    child = int(parent.ask("subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, close_fds=False).pid"))
    parent.kill()
    try:
        lock = Lock(path)
        assert lock.acquire()
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)


# Records of drivers that hold no lock.


def test_a_record_of_a_process_that_is_gone_keeps_nobody_out(path):
    write(path, pid=dead_pid(), started=1.0)
    lock = Lock(path)
    assert lock.acquire()
    assert lock.epoch == 8
    lock.release()


def test_a_pid_that_another_process_has_now_is_not_the_driver(path):
    write(path, started=1.5)
    driver = driver_of(path)
    assert driver is not None
    assert not driver.is_alive_here()
    lock = Lock(path)
    assert lock.acquire()
    lock.release()


def test_a_driver_of_an_earlier_boot_is_not_alive(path):
    write(path, boot="another-boot")
    driver = driver_of(path)
    assert driver is not None
    assert not driver.is_alive_here()
    lock = Lock(path)
    assert lock.acquire()
    lock.release()


class Clock:
    """The lock's clock: sleeping takes no time, and lets the other driver do what it does meanwhile."""

    def __init__(self, meanwhile=lambda: None):
        self.now = 0.0
        self._meanwhile = meanwhile

    def use(self, monkeypatch):
        clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: 5e9 + self.now, sleep=self.sleep)
        monkeypatch.setattr(module, "time", clock)
        return self

    def sleep(self, seconds):
        self.now += seconds
        self._meanwhile()


def test_a_driver_on_another_host_whose_heart_stood_still_is_taken_over_after_a_minute_of_our_clock(path, monkeypatch):
    write(path, host="elsewhere")
    clock = Clock().use(monkeypatch)
    lock = Lock(path)
    assert lock.acquire()
    assert clock.now >= STALE_SECONDS == 60
    assert lock.epoch == 8
    lock.release()


def test_how_old_a_heartbeat_of_another_host_looks_here_says_nothing(path, monkeypatch):
    write(path, host="elsewhere", heartbeat=0.0)
    beats = iter(range(1, 1000))
    clock = Clock(lambda: write(path, host="elsewhere", heartbeat=float(next(beats)))).use(monkeypatch)
    assert Lock(path).acquire() is False
    assert clock.now < STALE_SECONDS


def test_a_driver_on_another_host_that_beats_every_ten_seconds_is_never_taken_over(path, monkeypatch):
    write(path, host="elsewhere", heartbeat=0.0)
    seconds = iter(range(1000))
    Clock(lambda: write(path, host="elsewhere", heartbeat=next(seconds) // 10)).use(monkeypatch)
    assert Lock(path).acquire() is False


def test_a_driver_on_another_host_that_ended_keeps_nobody_waiting(path, monkeypatch):
    write(path, host="elsewhere", ended=True)
    clock = Clock().use(monkeypatch)
    lock = Lock(path)
    assert lock.acquire()
    assert clock.now == 0
    lock.release()


def test_a_driver_on_another_host_that_ends_while_we_look_is_followed(path, monkeypatch):
    write(path, host="elsewhere")
    Clock(lambda: write(path, host="elsewhere", ended=True)).use(monkeypatch)
    lock = Lock(path)
    assert lock.acquire()
    lock.release()


def test_a_driver_on_another_host_can_be_taken_over_at_once_by_hand(path, monkeypatch):
    write(path, host="elsewhere")
    clock = Clock().use(monkeypatch)
    lock = Lock(path)
    assert lock.acquire(take_over=True)
    assert (clock.now, lock.epoch) == (0, 8)
    lock.release()


# Takeover.


def test_an_overtaken_driver_finds_out_before_it_acts(path, lock):
    new = Lock(path)
    assert new.acquire(take_over=True)
    assert new.epoch == 2
    for act in (lock.check, lock.beat):
        with pytest.raises(Overtaken, match="another driver took over"):
            act()
    new.check()
    new.release()


def test_an_overtaken_driver_leaves_the_record_of_the_new_one_alone(path, lock):
    new = Lock(path)
    assert new.acquire(take_over=True)
    lock.release()
    driver = driver_of(path)
    assert driver is not None
    assert (driver.epoch, driver.ended) == (2, False)
    new.check()
    new.release()


def test_of_racing_takeovers_one_may_drive(lock, other):
    others = [other() for _ in range(5)]
    for one in others:
        one.ask("0")
    for _ in range(10):
        for one in others:
            one.tell("lock.acquire(take_over=True)")
        taken = [one for one in others if one.answer() == "True"]
        drivers = [one for one in taken if one.ask("lock.check()") == "None"]
        assert len(drivers) == 1
        for one in taken:
            one.ask("lock.release()")


def test_a_driver_that_took_over_is_left_alone_when_the_one_before_it_ends(path, other):
    suspended, new = other(), other()
    assert suspended.ask("lock.acquire()") == "True"
    os.kill(suspended.pid, signal.SIGSTOP)
    assert new.ask("lock.acquire(take_over=True)") == "True"
    suspended.kill()
    assert Lock(path).acquire() is False
    assert new.ask("lock.check()") == "None"


def test_who_means_to_drive_waits_for_one_that_only_settles(tmp_path):
    path = str(tmp_path / "lock")
    settler, driver = Lock(path, settles=True), Lock(path)
    assert settler.acquire()
    timer = threading.Timer(0.1, settler.release)
    timer.start()
    assert driver.acquire()
    timer.join()
    assert not Lock(path, settles=True).acquire()  # and who settles waits for nobody
    driver.release()


def test_a_settle_that_does_not_end_refuses_the_driver_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.05)
    path = str(tmp_path / "lock")
    settler = Lock(path, settles=True)
    assert settler.acquire()
    assert not Lock(path).acquire()
    settler.release()


def test_a_driver_that_was_killed_may_hold_the_lock_a_moment_longer(path):
    """Its first thread is gone and its others are not, which share its files."""
    first = Lock(path)
    assert first.acquire()
    record = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**record, "started": record["started"] - 1}).ljust(511) + "\n")
    timer = threading.Timer(0.1, first.abandon)
    timer.start()
    second = Lock(path)
    assert second.acquire()
    timer.join()
    second.release()


def test_a_lock_without_a_record_that_is_held_is_not_taken(path):
    first = Lock(path)
    assert first.acquire()
    os.truncate(path, 0)
    assert not Lock(path).acquire()
    first.abandon()
