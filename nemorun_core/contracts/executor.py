"""`Executor`: where and how to run a task, as a plain value."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from nemorun_core.contracts.capabilities import Capabilities
from nemorun_core.contracts.launcher import Launcher
from nemorun_core.contracts.packager import Packager
from nemorun_core.errors import UsageError
from nemorun_core.model.environment import check_environment
from nemorun_core.model.secret import Secret
from nemorun_core.model.state import ReasonKind

if TYPE_CHECKING:
    from typing_extensions import Self

    from nemorun_core.contracts.backend import Backend

__all__ = ["Executor", "connection_of"]

_IMMUTABLE = frozenset({bool, bytes, float, frozenset, int, str, type(None)})


@attrs.define(kw_only=True)
class Executor:
    """Base of all executors: mutable until the experiment is run, cheap to import, copy, compare and write to JSON.

    A subclass is decorated with `@attrs.define(kw_only=True)`, adds its own fields with types that cattrs can write
    to JSON and read back, and implements the three methods. It imports its heavy half only in `backend`.

    Attributes:
        env_vars: environment of the program, names kept as given; values are text or a `Secret`.
        retries: further attempts after a failure.
        retry_on: kinds of reason that are retried, as in `ReasonKind`; empty: all but LOST and REJECTED.
        timeout_seconds: longest time that a member may run; it ends FAILED with reason "timeout".
        launcher: what wraps the command, such as "torchrun": a launcher, or its name for one of defaults.
        packager: what ships files to where the job runs: a packager, or its name for one of defaults; None: nothing.
        outputs: glob patterns (`**` for any depth) of files that `sync` brings, relative to the folder the job runs in.
        python: interpreter of Python tasks; None: this one where the file system is shared and no image used, else
            "python3".
        separate_stderr: give standard error a stream of its own, `err`.
        grace_seconds: time between the polite signal and the kill.
        lost_after_seconds: how long a job may be unknown to its scheduler before it is LOST.
        placement_timeout_seconds: how long a group may be placed in part.
    """

    contract: ClassVar[int] = 1

    env_vars: dict[str, str | Secret] = attrs.field(factory=dict)
    retries: int = 0
    retry_on: frozenset[str] = attrs.field(default=frozenset(), converter=frozenset)
    timeout_seconds: float | None = None
    launcher: str | Launcher | None = None
    packager: str | Packager | None = None
    outputs: list[str] = attrs.field(factory=list)
    python: str | None = None
    separate_stderr: bool = False
    grace_seconds: float = 10.0
    lost_after_seconds: float = 300.0
    placement_timeout_seconds: float = 600.0

    def capabilities(self) -> Capabilities:
        """Return what these fields' backend can do, without any input or output."""
        raise NotImplementedError

    def connection(self) -> Hashable:
        """Return the identity of the scheduler: jobs whose executors' connections are equal share one backend."""
        raise NotImplementedError

    def backend(self) -> Backend:
        """Open the backend: imports its heavy half; no input or output before the first call."""
        raise NotImplementedError

    @classmethod
    def sample(cls) -> Self:
        """Return any one, for `nemorun doctor`, which asks its backend whether the scheduler answers. Override it where
        a field has no default."""
        return cls()

    def clone(self) -> Self:
        """Return an equal executor that shares nothing mutable with this one."""
        made = copy.copy(self)
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if type(value) not in _IMMUTABLE:
                object.__setattr__(made, field.name, copy.deepcopy(value))
        return made

    def ranks(self) -> int:
        """Return how many processes one member has here. Streams of rank r > 0 are named `out.r` and `err.r`."""
        return 1

    def check(self) -> None:
        """Refuse what cannot be honoured (E16). A subclass extends it and calls this first.

        Raises:
            UsageError: a field's value, with what was expected and what to use instead.
        """
        name = type(self).__name__
        check_environment(self.env_vars, f"{name}.env_vars")
        for field, base in (("launcher", Launcher), ("packager", Packager)):
            if not isinstance(getattr(self, field), (str, base, type(None))):
                found = getattr(self, field)
                raise UsageError(f"{name}({field}={found!r}): expected a {base.__name__} or the name of one.")
        if isinstance(self.launcher, Launcher):
            self.launcher.check(self)
        if not isinstance(self.outputs, (list, tuple)):
            raise UsageError(f"{name}(outputs={self.outputs!r}): expected a list of patterns.")
        for pattern in self.outputs:
            parts = pattern.split("/") if isinstance(pattern, str) else [".."]
            if ".." in parts or parts[0] == "" or "\0" in pattern:
                raise UsageError(
                    f"{name}(outputs=...): {pattern!r} is no pattern below the folder that the job runs in.",
                    hint="Write it relative to that folder, as 'checkpoints/**/*.pt'.",
                )
        for field in ("grace_seconds", "lost_after_seconds", "placement_timeout_seconds", "timeout_seconds"):
            seconds = getattr(self, field)
            if seconds is None:
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
                raise UsageError(f"{name}({field}={seconds!r}): expected a number of seconds, 0 or more.")
        if type(self.retries) is not int or self.retries < 0:
            raise UsageError(f"{name}(retries={self.retries!r}): expected a whole number, 0 or more.")
        kinds = [kind.value for kind in ReasonKind]
        for kind in self.retry_on:
            if kind not in kinds:
                raise UsageError(f"{name}(retry_on=...): there is no reason {kind!r}.", hint=f"Use {', '.join(kinds)}.")
        able = self.capabilities()
        if self.outputs and not (able.shares_files or able.fetch):
            raise UsageError(f"{name} cannot bring outputs.", hint="Leave outputs out.")
        if self.timeout_seconds is not None and not able.timeout:
            raise UsageError(f"{name} cannot honour timeout_seconds.", hint="Leave timeout_seconds out.")
        if self.separate_stderr and not able.separate_stderr:
            raise UsageError(f"{name} cannot honour separate_stderr.", hint="Leave separate_stderr out.")

    def check_group(self, executors: Sequence[Executor]) -> None:
        """Refuse a group whose members do not go together (E16); `executors` are all of its members', this one first.

        Each was checked by itself before, and all name one connection.

        Raises:
            UsageError: which members do not go together, and why.
        """


def connection_of(executor: Executor) -> Hashable:
    """Return what names the backend that runs an executor's jobs: one of another class never shares it."""
    return type(executor), executor.connection()
