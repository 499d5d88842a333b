"""The one module that runs commands: on this machine, or on a login node through ssh(1). Everything has a time-out."""

from __future__ import annotations

import abc
import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple

from nemorun_core import TransientError, UsageError

if TYPE_CHECKING:
    from nemorun_slurm.tunnel import SSHTunnel

__all__ = ["Commands", "LocalCommands", "Result", "SSHCommands", "last_line"]

_CONNECT_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_NEVER_SET = ("SBATCH_", "SLURM_", "SQUEUE_", "SACCT_", "SCANCEL_", "SALLOC_", "SRUN_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})


class Result(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    out: bytes
    error: str


def last_line(result: Result) -> str:
    """Return the last of what a command had to say for its failure."""
    return result.error.splitlines()[-1] if result.error else f"exit code {result.returncode}"


class Commands(abc.ABC):
    """Runs commands in one place. May be used from several threads at once, but for `close`."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | IO[bytes] = b"",
        stdout: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Run a command to its end, whatever its exit code.

        Its environment is this process's (here) or the login's (through ssh), with `environment` added, the names of
        `without` taken out, and without the variables by which Slurm's commands take options: what is asked stands in
        `argv` alone. What it prints goes to `stdout` where that is given, else into the result.

        Raises:
            TransientError: it did not end in time, and was killed; or the connection broke. What it should have done
                may be done.
            UsageError: there is no such command.
        """
        call, added = self._call(argv, environment or {}, without)
        name = argv[0]
        try:
            with subprocess.Popen(
                call,
                stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
                stdout=stdout if stdout is not None else subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=added,
                start_new_session=True,  # a Ctrl-C is for us to handle, and not for sbatch
            ) as process:
                try:
                    out, error = process.communicate(
                        stdin if isinstance(stdin, bytes) else None, timeout=timeout_seconds
                    )
                except BaseException:
                    process.kill()
                    process.communicate()
                    raise
        except subprocess.TimeoutExpired:
            raise TransientError(f"{name} did not answer within {timeout_seconds:g} s{self._where}.") from None
        except FileNotFoundError:
            raise self._missing(call[0]) from None
        except OSError as problem:
            raise TransientError(f"{name} could not be started: {problem.strerror}.") from None
        return self._checked(name, Result(process.returncode, out or b"", error.decode("utf-8", "replace").strip()))

    def close(self) -> None:  # noqa: B027 - nothing is held open here
        """End what is held open. May be called again."""

    _where = ""

    @abc.abstractmethod
    def _call(
        self, argv: Sequence[str], environment: Mapping[str, str], without: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        """Return what is started on this machine, and its environment."""

    @abc.abstractmethod
    def _checked(self, name: str, result: Result) -> Result:
        """Return the result, or raise where the command was not run at all."""

    def _missing(self, name: str) -> UsageError:
        return UsageError(
            f"expected Slurm's command {name!r} on this machine, and found none on PATH.",
            hint="Run this on a login node, or name one: SlurmExecutor(tunnel=SSHTunnel(host=..., job_dir=...))",
        )


def _clean(environment: Mapping[str, str], without: Sequence[str]) -> dict[str, str]:
    """Return an environment without what would change the meaning of Slurm's commands (sbatch(1), INPUT ENVIRONMENT
    VARIABLES, which come before the script's own lines)."""
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or not (name.startswith(_NEVER_SET) or name in without)
    }


# The same in POSIX sh, for the login's environment.
_CLEAN = f"""for name in $(env | sed -n 's/^\\(S[A-Z]*_[A-Z0-9_]*\\)=.*/\\1/p'); do
case $name in {"|".join(sorted(_KEPT))}) ;; {"|".join(f"{prefix}*" for prefix in _NEVER_SET)}) unset "$name" ;; esac
done"""

# sbatch exits with 255 where it cannot read an option, and ssh where there is no connection.
_NOT_SSH = "{ code=$?; [ $code -ne 255 ] || code=254; exit $code; }"


class LocalCommands(Commands):
    """The commands of this machine."""

    def _call(
        self, argv: Sequence[str], environment: Mapping[str, str], without: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        return list(argv), {**_clean(os.environ, without), **environment}

    def _checked(self, name: str, result: Result) -> Result:
        return result


class SSHCommands(Commands):
    """The commands of a login node, over one connection that is opened again when it broke.

    The connection is a child of this process that ends when its standard input does: with `close`, or with this
    process, however that ends. Where the user shares connections already (`ControlPath` in ~/.ssh/config), theirs is
    used and left alone.
    """

    def __init__(self, tunnel: SSHTunnel) -> None:
        self._tunnel = tunnel
        self._where = f" through ssh to {tunnel.host!r}"
        self._lock = threading.Lock()
        self._master: subprocess.Popen[bytes] | None = None
        self._folder = ""
        self._shared_by_user: bool | None = None

    def _call(
        self, argv: Sequence[str], environment: Mapping[str, str], without: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        with self._lock:
            shared = self._share()
        assignments = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
        unset = " ".join(f"-u {name}" for name in without)
        command = f"env {unset} {assignments} {shlex.join(argv)} || {_NOT_SSH}"
        text = f"{self._tunnel.pre_command}\n{_CLEAN}\n{command}\n"
        return [*self._ssh(), *shared, self._tunnel.host, shlex.join(["sh", "-c", text])], self._environment()

    def _environment(self) -> dict[str, str]:
        """What ssh itself needs, not what belongs to jobs or to us."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("NEMORUN_", *_NEVER_SET))}

    def _ssh(self) -> list[str]:
        tunnel = self._tunnel
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10", "-T", "-x"]
        if tunnel.port is not None:
            options += ["-p", str(tunnel.port)]
        if tunnel.identity is not None:
            options += ["-i", os.path.expanduser(tunnel.identity)]
        if tunnel.user is not None:
            options += ["-l", tunnel.user]
        return ["ssh", *tunnel.options, *options]

    def _share(self) -> list[str]:
        """Return the options that use the shared connection, which is opened where there is none."""
        if self._shared_by_user is None:
            self._shared_by_user = self._user_shares()
        if self._shared_by_user:
            return []
        path = self._open()
        return ["-o", "ControlMaster=no", "-o", f"ControlPath={path}"]

    def _user_shares(self) -> bool:
        """Ask ssh what the user's configuration says; it connects nowhere (ssh(1), -G)."""
        try:
            asked = subprocess.run(
                [*self._ssh(), "-G", self._tunnel.host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_CONNECT_SECONDS,
                env=self._environment(),
            )
        except FileNotFoundError:
            raise self._missing("ssh") from None
        except subprocess.TimeoutExpired:
            raise TransientError("ssh -G did not answer.") from None
        found = dict(line.partition(" ")[::2] for line in asked.stdout.decode("utf-8", "replace").lower().split("\n"))
        return found.get("controlpath", "none") != "none" and found.get("controlmaster", "false") != "false"

    def _open(self) -> str:
        if not self._folder:
            self._folder = tempfile.mkdtemp(prefix="nemorun-ssh-", dir=os.environ.get("XDG_RUNTIME_DIR") or None)
        path = os.path.join(self._folder, "c")
        if self._master is not None and self._master.poll() is None:
            return path
        self._end_master()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        options = ["-o", "ControlMaster=yes", "-o", f"ControlPath={path}", "-o", "ControlPersist=no"]
        try:
            self._master = subprocess.Popen(
                [*self._ssh(), *options, self._tunnel.host, "exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._environment(),
                start_new_session=True,
            )
        except FileNotFoundError:
            raise self._missing("ssh") from None
        deadline = time.monotonic() + _CONNECT_SECONDS
        while not os.path.exists(path):
            if self._master.poll() is not None:
                assert self._master.stderr is not None
                said = self._master.stderr.read().decode("utf-8", "replace").strip()
                self._end_master()
                raise self._unreachable(said)
            if time.monotonic() > deadline:
                self._end_master()
                raise self._unreachable(f"no connection within {_CONNECT_SECONDS:g} s")
            time.sleep(0.01)
        return path

    def _end_master(self) -> None:
        master, self._master = self._master, None
        if master is None:
            return
        assert master.stdin is not None
        assert master.stderr is not None
        with contextlib.suppress(OSError):
            master.stdin.close()
        try:
            master.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            master.kill()
            master.wait()
        master.stderr.close()

    def close(self) -> None:
        with self._lock:
            self._end_master()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = ""

    def _checked(self, name: str, result: Result) -> Result:
        if result.returncode == 255:  # ssh(1): an error of ssh itself
            raise self._unreachable(result.error)
        if result.returncode == 127 and "not found" in result.error:
            raise UsageError(
                f"expected Slurm's command {name!r}{self._where}, and found none on PATH there: {result.error}",
                hint="Say how it is found: SSHTunnel(pre_command='. /etc/profile')",
            )
        return result

    def _unreachable(self, said: str) -> TransientError:
        last = said.splitlines()[-1] if said else "it gave no reason"
        return TransientError(
            f"{self._tunnel.host!r} cannot be reached: {last}",
            hint=f"See that this works without a question: ssh -o BatchMode=yes {self._tunnel.host} true",
        )

    def _missing(self, name: str) -> UsageError:
        return UsageError(f"expected the command {name!r} on this machine.", hint="Install OpenSSH's client.")
