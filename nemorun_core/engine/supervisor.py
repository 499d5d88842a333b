"""A driver in a process of its own, started by `detach`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import traceback

from nemorun_core.engine.loop import Engine
from nemorun_core.errors import NemorunError, StoreError
from nemorun_core.registry import default_registry
from nemorun_core.store.layout import Folder
from nemorun_core.store.lock import Lock

__all__ = ["detach", "main"]

_READY = b"ready\n"
# The import path travels as an argument: the environment is what jobs inherit, and stays as it is.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from nemorun_core.engine.supervisor import main; sys.exit(main(sys.argv[1:]))"
)


def detach(folder: Folder, *, take_over: bool = False) -> None:
    """Start a supervisor and return when it holds the lock; it outlives this process, its terminal and its session.

    Raises:
        StoreError: it could not take the lock, with what it said.
    """
    argv = [sys.executable, "-c", _START, folder.path, json.dumps(sys.path), *(["--take-over"] if take_over else [])]
    scope = _scope()
    process, answer = _start([*scope, *argv], folder)
    if scope and not answer:  # no word of ours: it was the scope that could not be made
        process.wait()
        process, answer = _start(argv, folder)
    if answer == _READY:
        # It may outlive this process; if it does not, somebody has to take in its exit code.
        threading.Thread(target=process.wait, name="nemorun supervisor", daemon=True).start()
        return
    process.wait()
    said = answer.decode("utf-8", "replace").strip() or f"it ended with exit code {process.returncode}"
    raise StoreError(
        f"the supervisor of {folder.path} did not start: {said}.",
        hint=f"See {os.path.join(folder.path, 'supervisor.log')}",
    )


def _scope() -> list[str]:
    """Return what starts a program outside this login's scope, which may be ended with the login (systemd-run(1));
    nothing where no systemd of this user runs."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime or not os.path.exists(os.path.join(runtime, "systemd", "private")):
        return []
    command = shutil.which("systemd-run")
    return [command, "--user", "--scope", "--quiet", "--collect", "--"] if command else []


def _start(argv: list[str], folder: Folder) -> tuple[subprocess.Popen[bytes], bytes]:
    """Start a supervisor, and return it with its first line."""
    with open(os.path.join(folder.path, "supervisor.log"), "ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        return process, process.stdout.readline()


def main(argv: list[str]) -> int:
    """Drive the experiment in a folder to its end."""
    folder = Folder(argv[0])
    try:
        definition = folder.read_definition()
        lock = Lock(folder.lock)
        if not lock.acquire(take_over="--take-over" in argv):
            raise StoreError("another driver lives")
        engine = Engine(definition, folder, default_registry(), lock)
        engine.start()
    except NemorunError as error:
        print(error.message, flush=True)
        return 1
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)
    engine.wait()
    if engine.error is not None:
        if isinstance(engine.error, NemorunError):
            print(engine.error, file=sys.stderr)
        else:
            traceback.print_exception(engine.error)
        return 1
    return 0
