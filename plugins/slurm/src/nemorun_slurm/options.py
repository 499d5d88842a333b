"""The fields of `SlurmExecutor` that are options of sbatch(1): the table, their checks, and their `#SBATCH` lines."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from nemorun_core import UsageError
from nemorun_slurm.quoting import directive

if TYPE_CHECKING:
    from nemorun_slurm.executor import SlurmExecutor
    from nemorun_slurm.placement import Component

__all__ = ["FLAGS", "check_options", "directives"]

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "account": "--account",
        "partition": "--partition",
        "qos": "--qos",
        "reservation": "--reservation",
        "time": "--time",
        "nodes": "--nodes",
        "ntasks": "--ntasks",
        "ntasks_per_node": "--ntasks-per-node",
        "cpus_per_task": "--cpus-per-task",
        "cpus_per_gpu": "--cpus-per-gpu",
        "gpus_per_node": "--gpus-per-node",
        "gpus_per_task": "--gpus-per-task",
        "gres": "--gres",
        "mem": "--mem",
        "mem_per_cpu": "--mem-per-cpu",
        "mem_per_gpu": "--mem-per-gpu",
        "constraint": "--constraint",
        "nodelist": "--nodelist",
        "exclude": "--exclude",
        "exclusive": "--exclusive",
        "segment": "--segment",
        "network": "--network",
        "signal": "--signal",
        "requeue": "--requeue",
        "comment": "--comment",
        "open_mode": "--open-mode",
        "export": "--export",
    }
)
"""Field to flag, in the order of the lines."""

_NUMBERS = ("nodes", "ntasks", "ntasks_per_node", "cpus_per_task", "cpus_per_gpu", "segment")
_MEMORY = ("mem", "mem_per_cpu", "mem_per_gpu")
_TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
_SIGNAL = re.compile(r"(?:R:)?(?:SIG)?(?P<name>[A-Z0-9]+)(?:@\d{1,5})?")
_SIGNALS = frozenset({"TERM", "USR1", "USR2", "HUP", "15", "10", "12", "1"})
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_MOST_MINUTES = 525_600
# What would change where the job's files are, under which name it is found, or what sbatch answers.
_OURS = frozenset(
    {
        "array", "chdir", "clusters", "error", "help", "input", "job-name", "kill-on-invalid-dep", "output", "parsable",
        "ntasks-per-gpu", "quiet", "test-only", "usage", "verbose", "version", "wait", "wrap",
    }
)  # fmt: skip
# What would change which ranks a step has, what they are given, and where they write.
_OUR_SRUN = frozenset(
    {
        "--chdir", "--error", "--export", "--het-group", "--input", "--multi-prog", "--nodes", "--ntasks",
        "--ntasks-per-gpu", "--ntasks-per-node", "--output", "--relative", "-D", "-e", "-i", "-n", "-N", "-o", "-r",
    }
)  # fmt: skip


def directives(component: Component, timeout_seconds: float | None) -> list[str]:
    """Return the `#SBATCH` lines of what one component asks for, in the order of `FLAGS`.

    Args:
        timeout_seconds: longest time of its members. Where no `time` is given, Slurm is told a limit that lies a
            minute or more above, so that a job ends though nobody watches it.
    """
    executor = component.executor
    given: dict[str, object] = {field: getattr(executor, field) for field in FLAGS}
    given.update(nodes=component.nodes, ntasks=component.ntasks)
    if executor.gpus_per_task is not None and component.ntasks is None:
        given["ntasks"] = executor.ranks() * (len(component.members) if component.placing == "apart" else 1)
    if executor.time is None and timeout_seconds is not None:
        given["time"] = min(math.ceil(timeout_seconds / 60) + 1, _MOST_MINUTES)
    lines = []
    for field, flag in FLAGS.items():
        value = given[field]
        if field == "requeue" and value is not None:
            lines.append(directive("--requeue" if value else "--no-requeue"))
        elif value is True:
            lines.append(directive(flag))
        elif value is not None and value is not False:
            lines.append(directive(flag, str(value)))
    for name, value in executor.additional_parameters.items():
        flag = f"--{name.replace('_', '-')}"
        lines.append(directive(flag) if value is True else directive(flag, str(value)))
    return lines


def check_options(executor: SlurmExecutor) -> None:
    """Refuse values that sbatch would refuse, misread, or that would break what we rely on. Raises UsageError."""
    for field in _NUMBERS:
        value = getattr(executor, field)
        if value is not None and (type(value) is not int or value < 1):
            raise _wrong(field, value, "a whole number, 1 or more")
    for field, flag in FLAGS.items():
        value = getattr(executor, field)
        if isinstance(value, str):
            directive(flag, value)  # raises for what a line cannot hold
            if not value.strip() and field != "comment":
                raise _wrong(field, value, "a value, or None")
        elif field not in (*_NUMBERS, "requeue", "exclusive") and value is not None and type(value) is not int:
            raise _wrong(field, value, "text")
    memory = [field for field in _MEMORY if getattr(executor, field) is not None]
    if len(memory) > 1:
        raise UsageError(
            f"SlurmExecutor has both {memory[0]} and {memory[1]}, and Slurm takes one of them.", hint="Leave one out."
        )
    if executor.time is not None and not _TIME.fullmatch(executor.time):
        raise _wrong("time", executor.time, "minutes, 'minutes:seconds', 'hours:minutes:seconds' or 'days-hours:…'")
    if executor.open_mode not in ("append", "truncate"):
        raise _wrong("open_mode", executor.open_mode, "'append' or 'truncate'")
    if executor.requeue is not None and (type(executor.requeue) not in (bool, int) or executor.requeue < 0):
        raise _wrong("requeue", executor.requeue, "True, False, or the largest number of restarts")
    if executor.exclusive is not None and type(executor.exclusive) not in (bool, str):
        raise _wrong("exclusive", executor.exclusive, "True, 'user' or another word of sbatch's")
    _check_signal(executor.signal)
    _check_additional(executor.additional_parameters)
    _check_srun(executor.srun_args)


def _check_signal(signal: str | None) -> None:
    """Allow the signals that the shim notes and outlives. INT is not one: background jobs of a shell ignore it."""
    if signal is None:
        return
    if signal.startswith("B:"):
        raise UsageError(
            f"SlurmExecutor(signal={signal!r}): B: sends it to the batch script alone, which is nemorun's.",
            hint="Leave B: out, and the program gets the signal.",
        )
    match = _SIGNAL.fullmatch(signal)
    if match is None or match["name"] not in _SIGNALS:
        raise _wrong("signal", signal, "TERM, USR1, USR2 or HUP, and how long before the end, as 'USR1@120'")


def _check_additional(parameters: Mapping[str, object]) -> None:
    fields = {flag[2:]: field for field, flag in FLAGS.items()}
    for name, value in parameters.items():
        option = str(name).replace("_", "-")
        if option in fields or option == "no-requeue":
            field = fields.get(option, "requeue")
            raise UsageError(f"SlurmExecutor(additional_parameters): {name!r} has a field.", hint=f"Use {field}=….")
        if option in _OURS or not _OPTION.fullmatch(option):
            raise UsageError(
                f"SlurmExecutor(additional_parameters): {name!r} cannot be given: "
                + ("nemorun relies on its own." if option in _OURS else "it is no long option of sbatch."),
                hint="Leave it out.",
            )
        if value is not True and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
            raise UsageError(
                f"SlurmExecutor(additional_parameters): {name}={value!r}: expected text, a number, or True for a flag."
            )
        directive(f"--{option}", str(value))


def _check_srun(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not isinstance(argument, str) or not argument.startswith("-") or "\0" in argument:
            raise UsageError(
                f"SlurmExecutor(srun_args): expected an option of srun in one word, found {argument!r}.",
                hint="Write ['--cpu-bind=cores'].",
            )
        option = argument.partition("=")[0] if argument.startswith("--") else argument[:2]
        if option in _OUR_SRUN:
            raise UsageError(
                f"SlurmExecutor(srun_args): {argument!r} cannot be given: nemorun relies on its own.",
                hint="Leave it out; nodes, ntasks, ntasks_per_node and export are fields.",
            )


def _wrong(field: str, found: object, expected: str) -> UsageError:
    return UsageError(f"SlurmExecutor({field}={found!r}): expected {expected}.")
