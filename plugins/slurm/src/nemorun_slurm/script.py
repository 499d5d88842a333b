"""The batch script: one text for a job, which starts each rank of each member through the shim.

A member is a step of srun(1) also where it has one rank, so that signals, limits, devices and ranks are Slurm's own: 60
ms, measured on two busy processors.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import attrs

from nemorun_core import Key, Secret, Submission, shim_argv
from nemorun_slurm.containers import apptainer, exported, pyxis
from nemorun_slurm.options import directives
from nemorun_slurm.placement import Component, components
from nemorun_slurm.quoting import comment, directive, filename, shell

if TYPE_CHECKING:
    from nemorun_slurm.executor import SlurmExecutor

__all__ = [
    "KEY_MARK",
    "LONGEST_NAME",
    "Layout",
    "array_script",
    "array_task",
    "batch_output",
    "batch_script",
    "job_name",
    "secrets_text",
]

KEY_MARK = "nemorun-key"
"""The comment line that names the full key begins with `#`, a blank and this word."""
LONGEST_NAME = 128
"""Characters of a job's name in Slurm."""

_START = """trap 'exit $(($? ? $? : 1))' EXIT  # an end before the last line is no success
NEMORUN_srun=$(command -v srun)
NEMORUN_restarts=${SLURM_RESTART_COUNT:-0}"""

# Run by srun for each rank: learns which one it is and becomes the shim, in the smallest shell there is. Nothing but
# variables that begin with NEMORUN_ is changed; the shim's arguments come without the suffix, which is made here.
_RANK = r"""NEMORUN_rank='
export NEMORUN_RANK="$SLURM_PROCID" NEMORUN_LOCAL_RANK="$SLURM_LOCALID" NEMORUN_NODE_RANK="$SLURM_NODEID"
export NEMORUN_NNODES="$SLURM_STEP_NUM_NODES"
NEMORUN_shim=$1 NEMORUN_base=$2 NEMORUN_suffix=
[ "$NEMORUN_RANK" = 0 ] || NEMORUN_suffix=.$NEMORUN_RANK
shift 2
for NEMORUN_shell in /bin/dash /usr/bin/dash /bin/bash /bin/sh; do
    [ -x "$NEMORUN_shell" ] && break
done
exec "$NEMORUN_shell" "$NEMORUN_shim" "$NEMORUN_base" "$NEMORUN_suffix" "$@"'"""

# A port on which nothing listens on the first node now: from a number of the job's own upwards, below those that
# systems give to outgoing connections.
_PORT = r"""NEMORUN_HEAD_PORT=$((10000 + (SLURM_JOB_ID * 37 + NEMORUN_restarts) % 20000))
for ((NEMORUN_try = 0; NEMORUN_try < 100; NEMORUN_try++)); do
    printf -v NEMORUN_hex ':%04X 0*:0000 0A' "$NEMORUN_HEAD_PORT"
    grep -q "$NEMORUN_hex" /proc/net/tcp /proc/net/tcp6 2>/dev/null || break
    NEMORUN_HEAD_PORT=$((NEMORUN_HEAD_PORT + 1))
done"""

# The node of each task, in order, of counts such as "4(x2),1".
_SLOTS = r"""NEMORUN_slots=() NEMORUN_node=0
for NEMORUN_count in ${SLURM_TASKS_PER_NODE//,/ }; do
    NEMORUN_times=1
    [[ $NEMORUN_count != *x* ]] || NEMORUN_times=${NEMORUN_count#*x}
    for ((NEMORUN_times = ${NEMORUN_times%%[!0-9]*}; NEMORUN_times > 0; NEMORUN_times--)); do
        for ((NEMORUN_left = ${NEMORUN_count%%[!0-9]*}; NEMORUN_left > 0; NEMORUN_left--)); do
            NEMORUN_slots+=("${NEMORUN_nodes[NEMORUN_node]}")
        done
        NEMORUN_node=$((NEMORUN_node + 1))
    done
done
NEMORUN_nodes=("${NEMORUN_slots[@]}")"""

# The line of this task of the array, of which each sets NEMORUN_base and defines NEMORUN_member.
_TASK = r"""mapfile -s "$SLURM_ARRAY_TASK_ID" -n 1 -t NEMORUN_task <TASKS && [ -n "$NEMORUN_task" ] || exit 1
eval "$NEMORUN_task"
exec REDIRECT"$NEMORUN_base.batch" 2>&1
NEMORUN_base=$NEMORUN_base.$NEMORUN_restarts"""

# A signal ends a wait early, so that each is waited for until it is gone. The program's steps get theirs from Slurm.
_WAIT = r"""trap : TERM HUP USR1 USR2
NEMORUN_highest=0
for NEMORUN_step in "${NEMORUN_steps[@]}"; do
    wait "$NEMORUN_step"
    NEMORUN_code=$?
    while kill -0 "$NEMORUN_step" 2>/dev/null; do
        wait "$NEMORUN_step"
        NEMORUN_code=$?
    done
    [ "$NEMORUN_code" -le "$NEMORUN_highest" ] || NEMORUN_highest=$NEMORUN_code
done
trap - EXIT
exit $NEMORUN_highest"""


@attrs.frozen(kw_only=True)
class Layout:
    """Where things are on the cluster: the paths of this machine where files are shared, else below `job_dir`.

    Attributes:
        folder: the job's folder, absolute: records, streams, files of members, and the script's own output.
        support: the folder with `shim.sh`, what it reads, and `runner.py`, absolute.
    """

    folder: str
    support: str


@functools.lru_cache(maxsize=10_000)
def job_name(key: Key, prefix: str = "") -> str:
    """Return the name of an attempt in Slurm, by which it is found again: at most 128 characters, safe anywhere."""
    return prefix + key.slug(LONGEST_NAME - len(prefix))


def batch_output(folder: str, attempt: int) -> str:
    """Return the path of what the batch script itself and srun have to say, of all incarnations of an attempt."""
    return posixpath.join(folder, f"{attempt}.batch")


def batch_script(job: Submission, layout: Layout, *, secrets: str | None = None) -> str:
    """Return the text to be given to `sbatch` on its standard input, whole; the same for the same job.

    It exits with the highest exit code of all ranks, 125 where their starts were taken: how each ended stands in the
    records of the job's folder.

    Args:
        job: its members' `cwd` and `argv` are those of the cluster.
        secrets: the file on the cluster with `secrets_text`; needed where a member has secrets.

    Raises:
        UsageError: the members do not go together, or a text cannot be passed on.
    """
    executors = cast("Sequence[SlurmExecutor]", job.executors)
    parts = components(executors)
    head = [
        comment(f"{KEY_MARK} {job.key}"),
        directive("--job-name", job_name(job.key, executors[0].job_name_prefix)),
        directive("--output", filename(batch_output(layout.folder, job.key.attempt))),
        directive("--chdir", layout.folder),
    ]
    start = [
        f"NEMORUN_base={shell(posixpath.join(layout.folder, str(job.key.attempt)))}.$NEMORUN_restarts",
        *_restarts(executors[0].requeue, "$SLURM_JOB_ID"),
    ]
    members = [_member(job, member, parts, layout, secrets) for member in range(len(job.members))]
    return _script(job, parts, head, start, members)


def array_script(job: Submission, *, name: str, mark: str, size: int, tasks: str) -> str:
    """Return the text that gives many jobs to `sbatch` at once, as one array; each is as `batch_script` would have it.

    What they differ in is in the file `tasks` on the cluster, a line each as `array_task` makes it. Jobs may be one
    array if this is the same text for all: they have one member, no edges and no secrets.

    Args:
        job: any of them.
        mark: the comment line that says whose the array is.
    """
    executor = cast("SlurmExecutor", job.executors[0])
    head = [
        mark,
        directive("--job-name", name),
        directive("--array", f"0-{size - 1}"),
        directive("--output", "/dev/null"),  # sbatch has no name for a folder of each task's: the script does it
        directive("--chdir", posixpath.dirname(tasks)),
    ]
    redirect = ">" if executor.open_mode == "truncate" else ">>"
    start = [
        _TASK.replace("TASKS", shell(tasks)).replace("REDIRECT", redirect),
        *_restarts(executor.requeue, "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"),
    ]
    return _script(job, components([executor]), head, start, ["(NEMORUN_member) </dev/null &\nNEMORUN_steps+=($!)"])


def array_task(job: Submission, layout: Layout) -> str:
    """Return the one line of bash that makes a task of an array this job.

    Raises:
        UsageError: a text cannot be passed on.
    """
    parts = components(cast("Sequence[SlurmExecutor]", job.executors))
    base = shell(posixpath.join(layout.folder, str(job.key.attempt)))
    text = f"NEMORUN_base={base}; NEMORUN_member() {{ {_step(job, 0, parts, layout, ' ')}; }}"
    return text.replace("\n", "'$'\\n''") + "\n"  # a line feed stands between single quotes


def _script(
    job: Submission, parts: Sequence[Component], head: Sequence[str], start: Sequence[str], members: Sequence[str]
) -> str:
    timeouts = [one.timeout_seconds for one in job.executors if one.timeout_seconds is not None]
    timeout = max(timeouts) if len(timeouts) == len(job.executors) else None
    asked = [line for part in parts for line in ("#SBATCH hetjob", *directives(part, timeout))][1:]
    sections = [
        "\n".join(["#!/bin/bash", *head, *asked]),
        "\n".join([_START, *start]),
        _hosts(parts),
        _PORT,
        "export NEMORUN_HEAD_HOST=$NEMORUN_MEMBER_0_HOST NEMORUN_HEAD_PORT",
        _RANK,
        *_setup(job, cast("SlurmExecutor", job.executors[0])),
        "NEMORUN_steps=()",
        *members,
        _WAIT,
    ]
    return "\n\n".join(sections) + "\n"


def secrets_text(job: Submission) -> str:
    """Return the file of a job's secrets, to be kept where the user alone may read; "" where it has none.

    Raises:
        UsageError: a secret's source is missing here.
    """
    lines = []
    for number, member in enumerate(job.members):
        found = {name: value.reveal() for name, value in member.environment.items() if isinstance(value, Secret)}
        if found:
            lines += [f"{number})", *(f"export {name}={shell(value)}" for name, value in found.items()), ";;"]
    return "\n".join(["case $NEMORUN_MEMBER in", *lines, "esac", ""]) if lines else ""


def _restarts(requeue: bool | int | None, job_id: str) -> list[str]:
    """Return what keeps the number of restarts."""
    if not requeue or requeue is True:
        return []
    return [
        f'[ "$NEMORUN_restarts" -lt {requeue} ] || scontrol update JobId="{job_id}" Requeue=0',
        f'[ "$NEMORUN_restarts" -le {requeue} ] || {{ echo "nemorun: {requeue} restarts are over" >&2; exit 1; }}',
    ]


def _hosts(parts: Sequence[Component]) -> str:
    """Return what finds the first node of each member: by the lists that Slurm gives to the batch script."""
    lines: list[str] = []
    for number, part in enumerate(parts):
        if len(parts) == 1 and part.placing == "alone":
            return "export NEMORUN_MEMBER_0_HOST=$SLURMD_NODENAME"
        name = "SLURM_JOB_NODELIST" if len(parts) == 1 else f"SLURM_JOB_NODELIST_HET_GROUP_{number}"
        lines.append(f'mapfile -t NEMORUN_nodes < <(scontrol show hostnames "${name}")')
        if part.placing == "packed":
            lines.append(_SLOTS)
        for member in part.members:
            lines.append(f'export NEMORUN_MEMBER_{member}_HOST="${{NEMORUN_nodes[{part.first_node(member)}]}}"')
    return "\n".join(lines)


def _setup(job: Submission, executor: SlurmExecutor) -> list[str]:
    if not executor.setup_lines.strip():
        return []
    return [f"cd -- {shell(job.members[0].cwd)}\n{executor.setup_lines.strip()}\nset +eu"]


def _member(job: Submission, number: int, parts: Sequence[Component], layout: Layout, secrets: str | None) -> str:
    """Return the step of one member: in a shell of its own, beside the others, with the member's environment.

    `env` sets that, and not the shell, which has its own ideas of names such as UID or SECONDS.
    """
    member, executor = job.members[number], cast("SlurmExecutor", job.executors[number])
    secret = {name: value for name, value in member.environment.items() if isinstance(value, Secret)}
    lines = [f"({comment(f'member {number}')}", *(comment(f"{name}: {value}") for name, value in secret.items())]
    if secret:
        if secrets is None:
            raise ValueError("a job with secrets needs the path of their file")
        lines += [f"NEMORUN_MEMBER={number}", f". {shell(secrets)} || exit 1"]
        hidden = [name for name in exported(executor, tuple(member.environment)) if name in secret]
        lines += [f'export APPTAINERENV_{name}="${name}"' for name in hidden]
    step = _step(job, number, parts, layout, " \\\n    ")
    return "\n".join([*lines, step, ") </dev/null &", "NEMORUN_steps+=($!)"])


def _step(job: Submission, number: int, parts: Sequence[Component], layout: Layout, joint: str) -> str:
    """Return the command that becomes a member's step, its parts joined by `joint`."""
    member, executor = job.members[number], cast("SlurmExecutor", job.executors[number])
    part = next(part for part in parts if number in part.members)
    inside = exported(executor, tuple(member.environment))
    variables = []
    for name, value in member.environment.items():
        names = [name, f"APPTAINERENV_{name}"] if name in inside else [name]
        if not isinstance(value, Secret) and name != "NEMORUN_ATTEMPT":
            variables += [f"{each}={shell(value)}" for each in names]
    # What the job itself finds set, as the submitter's own; where it does not, the image's stays.
    variables += [f'${{{name}+"APPTAINERENV_{name}=${name}"}}' for name in inside if name not in member.environment]
    folders = (layout.folder, layout.support, member.cwd)
    shim, _, _, *arguments = shim_argv(
        posixpath.join(layout.support, "shim.sh"),
        "",
        "",
        member.cwd,
        apptainer(executor, folders, member.cwd, member.argv),
        separate_stderr=executor.separate_stderr,
        forward=True,  # proctrack/cgroup signals a step's tasks alone, and the shim is the task
    )
    step = ['"$NEMORUN_srun"', *map(shell, _placed(part, parts, number))]
    if part.placing == "packed":
        step.append(f'--nodelist="$NEMORUN_MEMBER_{number}_HOST"')
    step += map(shell, [*pyxis(executor, folders, tuple(member.environment)), *executor.srun_args])
    rank = ['/bin/sh -c "$NEMORUN_rank" sh', shell(shim), f'"$NEMORUN_base.{number}"', shell(*arguments)]
    attempt = f'NEMORUN_ATTEMPT="$(({job.key.attempt} + NEMORUN_restarts))"'
    return joint.join(["exec env", *variables, attempt, " ".join(step), " ".join(rank)])


def _placed(part: Component, parts: Sequence[Component], number: int) -> list[str]:
    """Return the options of srun that say how much of the allocation a member takes, and where."""
    executor = part.executor
    ranks = executor.ranks()
    options = ["--export=ALL", "--input=none"]
    if len(parts) > 1:
        options.append(f"--het-group={parts.index(part)}")
    if part.placing == "packed":
        options += ["--nodes=1", "--ntasks=1", "--exact"]
        if executor.mem_per_cpu is None and executor.mem_per_gpu is None:
            options.append("--mem=0")  # shared: the first step would else take the job's memory, and the others wait
    else:
        nodes = executor.nodes or (1 if executor.launcher else None)
        options += [f"--nodes={nodes}"] if nodes else []
        options.append(f"--ntasks={ranks}")
        if nodes and ranks % nodes == 0:
            options.append(f"--ntasks-per-node={ranks // nodes}")
        if part.placing == "apart":
            options.append(f"--relative={part.first_node(number)}")
        if part.placing != "alone":
            options.append("--overlap")
    if executor.cpus_per_task:
        spared = executor.ntasks_per_node or 1 if executor.launcher else 1
        options.append(f"--cpus-per-task={executor.cpus_per_task * spared}")
    return options
