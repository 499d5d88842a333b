"""What squeue(1), sacct(1) and sbatch(1) print, as values: rows of jobs, their states and reasons, refusals.

Rows are delimited by a control character, and free text stands in the middle of a row, so that a job's name, which may
hold anything, cannot shift the others. Times are asked for in UTC: run the commands with `TZ=UTC`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone
from types import MappingProxyType

import attrs

from nemorun_core import Deferred, Reason, ReasonKind, Rejected, State, TransientError
from nemorun_slurm.reasons import end_reason, waiting_reason

__all__ = [
    "SACCT_FORMAT",
    "SBATCH_CLOCK",
    "SQUEUE_FORMAT",
    "QueueRow",
    "observe_state",
    "parse_sacct",
    "parse_squeue",
    "refusal",
    "split_squeue",
    "submitted_id",
    "tried",
]

_MARK = "\x1f"
_SQUEUE_FIELDS = (
    "JobID", "JobArrayID", "State", "Reason", "exit_code", "RestartCnt", "SubmitTime", "StartTime", "EndTime",
    "HetJobID", "HetJobOffset", "Name", "NodeList",
)  # fmt: skip
_SACCT_FIELDS = ("JobIDRaw", "JobID", "State", "ExitCode", "Submit", "Start", "End", "JobName", "NodeList")

# Without a width, but with a suffix, squeue prints each field whole.
SQUEUE_FORMAT: tuple[str, ...] = (
    "--me",
    "--array",
    "--noheader",
    "--states=all",
    "--Format=" + ",".join(f"{name}:{_MARK}" for name in _SQUEUE_FIELDS),
)
"""Arguments of squeue that ask for all jobs of the user that slurmctld still knows, finished ones as well, and for each
task of an array."""

SACCT_FORMAT: tuple[str, ...] = (
    "--duplicates",
    "--noheader",
    "--parsable2",
    f"--delimiter={_MARK}",
    f"--format={','.join(_SACCT_FIELDS)}",
)
"""Arguments of sacct that ask for jobs, their steps and their earlier incarnations; `--jobs` or `--name` is added."""

SBATCH_CLOCK = MappingProxyType({"SLURM_TIME_FORMAT": "%Y-%m-%dT%H:%M:%S%z"})
"""Variables with which sbatch tells times with their zone; what a job begins or ends at is read in the user's own."""

_HEAD = re.compile(rf"^[0-9]+(?:\.[a-z0-9]+|[+][0-9]+)*{_MARK}", re.MULTILINE)
_TASKS = re.compile(r"(\d+)(?:-(\d+))?(?::(\d+))?(?=[],])")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_STATES = {  # squeue and sacct are asked for long words; these are short for them, or only newer ones
    "CA": "CANCELLED", "CD": "COMPLETED", "CF": "CONFIGURING", "CG": "COMPLETING", "F": "FAILED", "NF": "NODE_FAIL",
    "OOM": "OUT_OF_MEMORY", "PD": "PENDING", "PR": "PREEMPTED", "R": "RUNNING", "S": "SUSPENDED", "TO": "TIMEOUT",
}  # fmt: skip
_WAITING = frozenset(
    {
        "CONFIGURING", "PENDING", "POWER_UP_NODE", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD",
        "SPECIAL_EXIT",
    }
)  # fmt: skip
_RUNNING = frozenset(
    {
        "COMPLETING", "EXPEDITING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED",
        "UPDATE_DB",
    }
)  # fmt: skip


@attrs.frozen(kw_only=True)
class QueueRow:
    """One incarnation of one job, one task of an array, or one component of a heterogeneous job, as Slurm told it.

    Attributes:
        job_id: by which commands take it: a number, "12_3" for a task of an array.
        name: the job's name; free text.
        state: Slurm's long word: "RUNNING", "CANCELLED", "OUT_OF_MEMORY".
        reason: Slurm's word for why it waits or how it ended; "" where there is none.
        exit_code, signal: how the batch script ended; None: not yet, or not known. sacct before 25.11 takes 128 off
            exit codes above, so that they are witnesses of success and failure and of nothing else.
        restarts: how often it was started again.
        submitted, started, ended, expected_start: ISO 8601 UTC with milliseconds; None: not yet, or not known.
        nodes: where it runs or ran, as a list of Slurm's; "" while it waits.
        het_job, het_offset: the number of the heterogeneous job whose component it is, and which one; None: of none.
        array_job, task: the number of the array that it is a task of, and which one; None and "": of none.
        out_of_memory: a step of it was killed for its memory.
    """

    job_id: str
    name: str
    state: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    submitted: str | None = None
    started: str | None = None
    ended: str | None = None
    expected_start: str | None = None
    nodes: str = ""
    het_job: str | None = None
    het_offset: int | None = None
    array_job: str | None = None
    task: str = ""
    out_of_memory: bool = False


def split_squeue(text: str) -> dict[str, list[str]]:
    """Return the rows that squeue printed, as they stand, by the jobs' names: of thousands most are not ours.

    Raises:
        TransientError: a row that cannot be read.
    """
    found: dict[str, list[str]] = {}
    before = _SQUEUE_FIELDS.index("Name")
    after = len(_SQUEUE_FIELDS) - before  # with the mark behind the last
    for record in _records(text):
        rest = record.split(_MARK, before)[-1].rsplit(_MARK, after)
        if len(rest) <= after:
            raise _unreadable(record, len(_SQUEUE_FIELDS))
        found.setdefault(rest[0], []).append(record)
    return found


def parse_squeue(text: str) -> list[QueueRow]:
    """Return the jobs that squeue printed when asked with `SQUEUE_FORMAT`, in its order.

    Raises:
        TransientError: a row that cannot be read.
    """
    rows = []
    for record in _records(text):
        fields = _split(record.removesuffix(_MARK), len(_SQUEUE_FIELDS), _SQUEUE_FIELDS.index("Name"))
        job_id, shown, state, reason, status, restarts, submitted, start, end, het, offset, name, nodes = fields
        word = _state(state)
        waits = word in _WAITING
        over = word not in _WAITING | _RUNNING
        code, signal = _ended(status)
        rows += _each(
            shown,
            QueueRow(
                job_id=job_id,
                name=name,
                state=word,
                reason="" if reason in ("None", "N/A") else reason,
                exit_code=code if over else None,
                signal=signal if over else None,
                restarts=int(restarts) if restarts.isdigit() else 0,
                submitted=_time(submitted),
                started=None if waits else _time(start),
                ended=_time(end) if over else None,
                expected_start=_time(start) if waits else None,
                nodes=_nodes(nodes),
                het_job=het if het.isdigit() and het != "0" else None,
                het_offset=int(offset) if het.isdigit() and het != "0" and offset.isdigit() else None,
            ),
        )
    return rows


def parse_sacct(text: str) -> list[QueueRow]:
    """Return the jobs that sacct printed when asked with `SACCT_FORMAT`: for each, its incarnations from the first on.

    Raises:
        TransientError: a row that cannot be read.
    """
    found: dict[tuple[str, str], list[QueueRow]] = {}  # by name as well: a cluster may give an id out again
    shown_as: dict[tuple[str, str], str] = {}
    latest: dict[str, list[QueueRow]] = {}
    for record in _records(text):
        fields = _split(record, len(_SACCT_FIELDS), _SACCT_FIELDS.index("JobName"))
        raw, shown, state, ended_with, submitted, start, end, name, nodes = fields
        number, _, step = raw.partition(".")
        if step:
            if _state(state) == "OUT_OF_MEMORY" and (of_job := latest.get(number)):
                of_job[-1] = attrs.evolve(of_job[-1], out_of_memory=True)
            continue
        incarnations = latest[number] = found.setdefault((number, name), [])
        shown_as[number, name] = shown
        word = _state(state)
        code, signal = _ended(ended_with)
        over = word not in _WAITING | _RUNNING or word == "REQUEUED"
        shared, _, offset = shown.partition("+")
        incarnations.append(
            QueueRow(
                job_id=number,
                name=name,
                state=word,
                reason=state.partition(" ")[2],
                exit_code=code if over else None,
                signal=signal if over else None,
                restarts=len(incarnations),
                submitted=_time(submitted),
                started=_time(start),
                ended=_time(end),
                nodes=_nodes(nodes),
                het_job=shared if offset else None,
                het_offset=int(offset) if offset.isdigit() else None,
                out_of_memory=word == "OUT_OF_MEMORY",
            )
        )
    return [one for key, incarnations in found.items() for row in incarnations for one in _each(shown_as[key], row)]


def observe_state(row: QueueRow) -> tuple[State, Reason | None]:
    """Return what a row says by itself of the job it is of, with the reason for it; records of the job may know better.

    A state that this version of ours does not know counts as RUNNING: it is no evidence of an end.
    """
    if row.state in _WAITING:
        return State.PENDING, waiting_reason(row.state, row.reason, row.expected_start)
    if row.state == "COMPLETED":
        return State.SUCCEEDED, None
    reason = end_reason("OUT_OF_MEMORY" if row.out_of_memory else row.state, row.reason, row.exit_code, row.signal)
    if row.state in _RUNNING or reason is None:
        return State.RUNNING, None
    return (State.CANCELLED if row.state in ("CANCELLED", "REVOKED") else State.FAILED), reason


def submitted_id(printed: str) -> str:
    """Return the job's number that `sbatch --parsable` printed: `<number>` or `<number>;<cluster>`.

    Raises:
        TransientError: it printed something else; the job may have been taken all the same.
    """
    lines = printed.strip().splitlines()
    number = lines[-1].partition(";")[0].strip() if lines else ""
    if not number.isdigit():
        raise TransientError(f"expected a job's number from sbatch, found {printed[:200]!r}.")
    return number


def tried(said: str) -> str:
    """Return in our words what `sbatch --test-only` said of a job that it would take, asked with `SBATCH_CLOCK`."""
    match = _TO_START.search(said)
    if match is None:
        return "would be taken"
    try:
        start = datetime.strptime(match["start"], "%Y-%m-%dT%H:%M:%S%z").astimezone(timezone.utc)
        when = f"{start:%Y-%m-%dT%H:%M:%SZ}"
    except ValueError:
        when = match["start"]
    return f"would start at {when} on {match['nodes']}"


def refusal(stderr: str, returncode: int) -> Rejected | Deferred | None:
    """Return how sbatch refused a job; None where it is not sure that it did, so that the job has to be looked for.

    Sure is what slurmctld or sbatch's own reader names, of `--test-only` as well. A connection that broke and a sbatch
    that was killed leave it open.
    """
    if returncode <= 0 or (returncode >= 126 and not _SYNTAX.search(stderr)):
        return None
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [_SAID.sub("", line) for line in lines if _SAID.match(line)]
    if not said:
        return None
    words = "; ".join(dict.fromkeys(said))
    if _BROKEN.search(words):
        return None
    if "dependency problem" in words.lower():
        return None  # Slurm has forgotten the upstream; the same job without that edge may be taken
    policies = _POLICY.findall(words)
    if any("Submit" in policy for policy in policies) or (not policies and _LIMIT.search(words)):
        return Deferred(Reason(ReasonKind.LIMIT, words))
    return Rejected(Reason(ReasonKind.REJECTED, words))


_SAID = re.compile(r"^(?:sbatch: (?:error: |fatal: )?|allocation failure: )")
_TO_START = re.compile(
    r"^sbatch: Job \S+ to start at (?P<start>\S+) using \d+ processors on (?:nodes )?(?P<nodes>\S+)", re.MULTILINE
)
# What sbatch's own reader says, with the exit code 255, which is ssh's where a connection broke.
_SYNTAX = re.compile(
    r"^sbatch: (?:error: |fatal: )?(?:unrecognized option|invalid|option .* (?:requires|is ambiguous)|.*not a valid )",
    re.IGNORECASE | re.MULTILINE,
)
# What slurm_errno.c has for communication, authentication and a busy slurmctld; none of it says that there is no job.
_BROKEN = re.compile(
    r"unable to contact slurm|timed out|connection (?:refused|failure|reset|error)|communication|transport endpoint"
    r"|zero bytes|authenticat|credential|munge|backup controller|standby|unable to (?:establish|resolve)|unknown host"
    r"|no route|could not establish a configuration|unexpected message|protocol|header lengths|message (?:send|receive)"
    r"|controller (?:is )?not|shutdown|broken pipe|interrupted|message corrupt|internal|i/o error",
    re.IGNORECASE,
)
# A limit's own name, where Slurm gives it: on the number of jobs, it passes; on what one job may ask for, it does not.
_POLICY = re.compile(r"\b(?:QOS|Assoc)[A-Z]\w+")
_LIMIT = re.compile(
    r"resource temporarily unavailable|temporarily unable to accept|submit limit|maxjobcount|too many jobs|rate limit"
    r"|try again later|insufficient space|no space left|invalid job array specification",
    re.IGNORECASE,
)


def _records(text: str) -> Iterator[str]:
    """Yield the rows of a table. A row goes on to the next line that begins like one: names may hold line feeds."""
    starts = [match.start() for match in _HEAD.finditer(text)]
    if text.strip() and not starts:
        raise TransientError(f"expected a table of Slurm's, found {text[:200]!r}.")
    for start, stop in zip(starts, [*starts, len(text)][1:], strict=True):
        yield text[start:stop].removesuffix("\n")


def _unreadable(record: str, count: int) -> TransientError:
    return TransientError(f"a row of Slurm's cannot be read: expected {count} fields, found {record[:200]!r}.")


def _split(record: str, count: int, free: int) -> list[str]:
    """Return the fields of a row, of which the one at `free` may hold the mark itself."""
    parts = record.split(_MARK)
    if len(parts) < count:
        raise _unreadable(record, count)
    after = count - free - 1
    tail = parts[len(parts) - after :]
    return [*(part.strip() for part in parts[:free]), _MARK.join(parts[free : len(parts) - after]), *tail]


def _each(shown: str, row: QueueRow) -> list[QueueRow]:
    """Return a row for each task of an array that Slurm shows in one, as `12_[0-3,7%2]`; of any other job, itself."""
    array, of_array, text = shown.partition("_")
    if not of_array:
        return [row]
    tasks = [text]
    if text.startswith("["):  # what was cut off, with three dots, is in none
        listed = text.partition("%")[0] + ","
        ranges = [(int(first), int(last or first), int(step or 1)) for first, last, step in _TASKS.findall(listed)]
        tasks = [str(task) for first, last, step in ranges for task in range(first, last + 1, step)]
    return [attrs.evolve(row, job_id=f"{array}_{task}", array_job=array, task=task) for task in tasks]


def _state(text: str) -> str:
    """Return the long word of a state: `CANCELLED by 1000` is CANCELLED, `OUT_OF_ME+` is OUT_OF_MEMORY."""
    word = text.partition(" ")[0].upper()
    if word.endswith("+"):
        word = next((known for known in sorted(_KNOWN) if known.startswith(word[:-1])), word[:-1])
    return _STATES.get(word, word)


_KNOWN = (
    _WAITING
    | _RUNNING
    | {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
    | {"PREEMPTED", "REVOKED", "TIMEOUT"}
)


def _ended(text: str) -> tuple[int | None, int | None]:
    """Return exit code and signal, of a wait status (wait(2)) or of `<code>:<signal>`; None for what is not there."""
    code, colon, signal = text.partition(":")
    if not code.isdigit() or (colon and not signal.isdigit()):
        return None, None
    return (int(code), int(signal) or None) if colon else (int(code) >> 8, int(code) & 0x7F or None)


def _time(text: str) -> str | None:
    return f"{text}.000Z" if _TIME.fullmatch(text) else None


def _nodes(text: str) -> str:
    text = text.strip()
    return "" if text in ("None assigned", "(null)", "None", "N/A") else text
