"""Learn that processes ended, from the kernel: no polling where there is pidfd_open(2), a thread each elsewhere."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time

__all__ = ["Watch"]


class Watch:
    """A set of processes, children or not. One thread uses it, but for `wake`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reading, self._wake_writing = os.pipe()
        for end in (self._wake_reading, self._wake_writing):
            os.set_blocking(end, False)
        self._selector.register(self._wake_reading, selectors.EVENT_READ, None)
        self._handles: dict[int, int] = {}
        self._ended: dict[int, int | None] = {}
        self._fresh: list[int] = []
        self._lock = threading.Lock()

    def add(self, pid: int) -> bool:
        """Watch a process; return whether there is one. A zombie of ours is one that has ended."""
        if hasattr(os, "pidfd_open"):
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                return False
            except OSError:
                handle = -1  # out of files, or a kernel before 5.3
            if handle >= 0:
                self._handles[pid] = handle
                self._selector.register(handle, selectors.EVENT_READ, pid)
                return True
        threading.Thread(target=self._wait_for, args=(pid,), name=f"watch {pid}", daemon=True).start()
        return True

    def has_ended(self, pid: int) -> bool:
        """Whether a watched process has ended, as far as `wait` has seen."""
        return pid in self._ended

    def reap(self, pid: int) -> int | None:
        """Forget an ended process and return its exit code, negative for a signal; None where only its parent knows."""
        status = self._ended.pop(pid)
        return self._wait(pid) if status is None else status

    def forget(self, pid: int) -> None:
        """Stop watching a process, which goes on."""
        handle = self._handles.pop(pid, None)
        if handle is not None:
            self._selector.unregister(handle)
            os.close(handle)
        self._ended.pop(pid, None)

    def wait(self, timeout_seconds: float) -> list[int]:
        """Block until a watched process ends, `wake`, or the time is over; return the pids that ended since the last
        call."""
        with self._lock:
            timeout_seconds = 0 if self._fresh else timeout_seconds
        ended = []
        for key, _ in self._selector.select(timeout_seconds):
            if key.data is None:
                os.read(self._wake_reading, 4096)
                continue
            pid = key.data
            self.forget(pid)
            self._ended[pid] = None
            ended.append(pid)
        with self._lock:
            ended.extend(self._fresh)
            self._fresh.clear()
        return ended

    def wake(self) -> None:
        """End a `wait` early, from any thread."""
        with contextlib.suppress(OSError):  # full: it is awake already; or closed
            os.write(self._wake_writing, b".")

    def close(self) -> None:
        """Stop watching everything. May be called again."""
        if self._wake_writing < 0:
            return
        for pid in list(self._handles):
            self.forget(pid)
        self._selector.close()
        os.close(self._wake_reading)
        os.close(self._wake_writing)
        self._wake_writing = -1

    def _wait_for(self, pid: int) -> None:
        status = self._wait(pid)
        while status is None and _exists(pid):
            time.sleep(1.0)
        with self._lock:
            self._ended[pid] = status
            self._fresh.append(pid)
        self.wake()

    @staticmethod
    def _wait(pid: int) -> int | None:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
