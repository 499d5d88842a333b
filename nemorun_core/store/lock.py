"""Who drives an experiment: a lock of the file system, and a record that other machines can judge."""

import contextlib
import fcntl
import json
import os
import time
import weakref
from typing import NamedTuple

from nemorun_core.contracts.host import boot_id, hostname, process_started
from nemorun_core.errors import StoreError
from nemorun_core.store.files import guarded

__all__ = ["HEARTBEAT_SECONDS", "STALE_SECONDS", "Driver", "Lock", "Overtaken", "driver_of"]

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
_SETTLE_SECONDS = 2.0
_RECORD_BYTES = 512


class Overtaken(StoreError):
    """Another driver took the experiment over; this one must not write or submit any more."""


class Driver(NamedTuple):
    """The record of the process that drives, or drove last.

    Attributes:
        started: seconds since boot at which the process started, None where unknown.
        epoch: one more with each takeover.
        heartbeat: POSIX time on the driver's clock; compared with itself only.
        ended: whether it gave the lock back by itself.
        settles: whether it only looks at what runs, which is over soon, and submits nothing.
    """

    host: str
    boot: str
    pid: int
    started: float | None
    epoch: int
    heartbeat: float
    ended: bool = False
    settles: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells this driver from every other, also from one that took the same epoch in the same instant."""
        return self.host, self.boot, self.pid, self.started, self.epoch

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == hostname()

    def is_alive_here(self) -> bool:
        """Whether its process exists on this machine: same boot, same pid, same start."""
        if self.ended or not self.is_here or self.boot != boot_id():
            return False
        return process_started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lock:
    """The right to drive one experiment. Held until `release` or the end of the process."""

    def __init__(self, path: str, *, settles: bool = False) -> None:
        self._path = path
        self._settles = settles
        self._handle = -1
        self._identity: tuple[object, ...] = ()
        self.epoch = 0

    def acquire(self, *, take_over: bool = False) -> bool:
        """Take the lock if no driver lives; return whether it was taken.

        It waits a moment for one that is about to end, and one that means to drive also for one that only settles.
        With `take_over` it is also taken from a driver that lives or cannot be judged: that one finds its epoch passed
        and stops before it writes or submits.

        Raises:
            StoreError: the lock's file cannot be opened or written.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while not self._try(take_over):
            if not self._passes(driver_of(self._path)) or time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def _passes(self, holder: Driver | None) -> bool:
        """Whether who holds the lock is gone in a moment: it only settles, or it has ended and its threads are still
        being torn down, which keep its files open that long."""
        if holder is None:
            return False
        return (holder.settles and not self._settles) or (holder.is_here and not holder.is_alive_here())

    def _try(self, take_over: bool) -> bool:
        with guarded("open", self._path):
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _try_flock(handle, self._path) and not take_over:
                os.close(handle)
                return False
            previous = _parse(os.pread(handle, _RECORD_BYTES, 0))
            if previous is not None and not take_over and _may_live(previous, handle):
                os.close(handle)
                return False
            self._handle = handle
            self.epoch = previous.epoch + 1 if previous else 1
            self._write(ended=False)
            with guarded("write", self._path):
                os.fsync(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            self._handle = -1
            raise
        _held.add(self)
        return True

    def check(self) -> None:
        """Make sure that this is still the driver. Called before each submission and append.

        Raises:
            Overtaken: it is not.
            StoreError: the experiment's folder was removed.
        """
        if os.fstat(self._handle).st_nlink == 0:
            raise StoreError(
                f"{os.path.dirname(self._path)} was removed while its experiment ran.",
                hint="Jobs that still run go on, and cannot be followed any more.",
            )
        record = _parse(os.pread(self._handle, _RECORD_BYTES, 0))
        if record is None or record.identity != self._identity:
            raise Overtaken(
                f"another driver took over {os.path.dirname(self._path)}"
                f"{f' ({record})' if record else ''}; this one stops.",
                hint="Its jobs go on under the new driver.",
            )

    def beat(self) -> None:
        """Show that this driver lives."""
        self.check()
        self._write(ended=False)

    def release(self) -> None:
        """Give the lock back. May be called again."""
        if self._handle < 0:
            return
        _held.discard(self)
        with contextlib.suppress(OSError, StoreError):
            self.check()
            self._write(ended=True)
        self.abandon()

    def abandon(self) -> None:
        """Close without a word in the record: in a forked child, whose parent goes on driving."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _write(self, *, ended: bool) -> None:
        record = Driver(
            host=hostname(),
            boot=boot_id(),
            pid=os.getpid(),
            started=process_started(os.getpid()),
            epoch=self.epoch,
            heartbeat=time.time(),
            ended=ended,
            settles=self._settles,
        )
        self._identity = record.identity
        text = json.dumps(record._asdict()).encode("ascii").ljust(_RECORD_BYTES - 1) + b"\n"
        with guarded("write", self._path):
            os.pwrite(self._handle, text, 0)


def driver_of(path: str) -> Driver | None:
    """Return the record of a lock, None if there is none. Opens the file for reading only, and drops no lock."""
    try:
        with open(path, "rb") as stream:
            return _parse(stream.read(_RECORD_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}.") from error


def _try_flock(handle: int, path: str) -> bool:
    # flock(2) and not fcntl(2): a lock of fcntl is lost when this process closes any other handle of the file.
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(
            f"cannot lock {path}: {error.strerror}.", hint="Choose a folder on a file system with locks."
        ) from error
    return True


def _may_live(previous: Driver, handle: int) -> bool:
    """Judge a driver whose lock was free: on this machine by its process, which may have taken over without the lock;
    on another by its heartbeat alone."""
    if previous.ended or previous.is_here:
        return previous.is_alive_here()
    deadline = time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(1.0)
        current = _parse(os.pread(handle, _RECORD_BYTES, 0))
        if current is None or current.ended:
            return False
        if current.heartbeat != previous.heartbeat or current.epoch != previous.epoch:
            return True
    return False


def _parse(data: bytes) -> Driver | None:
    try:
        return Driver(**json.loads(data))
    except (ValueError, TypeError):
        return None


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _abandon_in_child() -> None:
    for lock in list(_held):
        lock.abandon()


# A lock of flock(2) belongs to the open file, which a forked child shares: it must not keep it alive.
os.register_at_fork(after_in_child=_abandon_in_child)
