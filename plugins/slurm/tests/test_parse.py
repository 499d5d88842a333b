"""What Slurm prints is read as what it means: samples of real clusters, and rows with any names in them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nemorun_slurm.parse import (
    SACCT_FORMAT,
    SQUEUE_FORMAT,
    QueueRow,
    observe_state,
    parse_sacct,
    parse_squeue,
    refusal,
    split_squeue,
    submitted_id,
    tried,
)
from nemorun_slurm.reasons import output_reason

from nemorun_core import Deferred, ReasonKind, Rejected, State, TransientError

SAMPLES = Path(__file__).with_name("samples")
MARK = "\x1f"


def sample(name):
    return (SAMPLES / name).read_bytes().decode()


def by_name(rows):
    found = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


@pytest.fixture
def queued():
    return by_name(parse_squeue(sample("squeue-22.05.txt")))


@pytest.fixture
def accounted():
    return by_name(parse_sacct(sample("sacct-22.05.txt")))


@pytest.fixture
def newer():
    """The rows of sacct 26.05, put in the order in which we ask for them."""
    head, *lines = sample("sacct-26.05.txt").splitlines()
    wanted = SACCT_FORMAT[-1].removeprefix("--format=").split(",")
    places = [head.split("|").index(name) for name in wanted]
    return by_name(parse_sacct("".join(MARK.join(line.split("|")[place] for place in places) + "\n" for line in lines)))


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("good", State.SUCCEEDED, None),
        ("fail", State.FAILED, "exit code 3, of the batch script"),
        ("high", State.FAILED, "exit code 200, of the batch script"),
        ("segv", State.FAILED, "signal 11, of the batch script"),
        ("oom", State.FAILED, "out of memory"),
        ("stop", State.CANCELLED, "by user"),
        ("run", State.RUNNING, None),
        ("held", State.PENDING, "waiting: JobHeldUser (its user holds it)"),
        ("never", State.PENDING, "dependency: DependencyNeverSatisfied"),
        ("down", State.PENDING, "waiting: PartitionDown (the partition does not start jobs)"),
        ("many", State.PENDING, "unschedulable: PartitionNodeLimit (it asks for more nodes than the partition gives)"),
        ("big", State.PENDING, "unschedulable: PartitionTimeLimit (it asks for more time than the partition gives)"),
    ],
)
def test_squeue_says_how_a_job_stands(queued, name, state, reason):
    [row] = queued[name]
    found = observe_state(row)
    assert (found[0], found[1] and str(found[1])) == (state, reason)


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("good", State.SUCCEEDED, None),
        ("fail", State.FAILED, "exit code 3, of the batch script"),
        ("segv", State.FAILED, "signal 11, of the batch script"),
        ("oom", State.FAILED, "out of memory"),
        ("stop", State.CANCELLED, "by user: by 0"),
        ("run", State.RUNNING, None),
    ],
)
def test_sacct_says_how_a_job_stands(accounted, name, state, reason):
    [row] = accounted[name]
    found = observe_state(row)
    assert (found[0], found[1] and str(found[1])) == (state, reason)


def test_a_waiting_job_says_when_it_is_expected_to_start(queued):
    [row] = queued["later"]
    assert row.started is None
    assert row.expected_start == "2026-11-27T02:25:58.000Z"
    assert "expected to start at 2026-11-27T02:25:58Z" in str(observe_state(row)[1])


def test_a_job_that_was_started_again_says_how_often(queued, accounted):
    assert [(row.state, row.restarts) for row in queued["again"]] == [("PENDING", 1)]
    assert [(row.state, row.restarts) for row in accounted["again"]] == [("REQUEUED", 0)]
    assert observe_state(accounted["again"][0])[0] is State.PENDING


def test_components_and_tasks_of_arrays_are_told_apart(queued, accounted):
    for rows in (queued, accounted):
        assert [(row.job_id, row.het_job, row.het_offset) for row in rows["het"]] == [("16", "16", 0), ("17", "16", 1)]
    assert sorted((row.job_id, row.array_job, row.task, row.state) for row in queued["arr"]) == [
        ("15_1", "15", "1", "RUNNING"),
        *((f"15_{task}", "15", str(task), "PENDING") for task in (2, 3, 4)),
    ]


def test_a_name_may_hold_marks_quotes_and_line_feeds(queued, accounted):
    for rows in (queued, accounted):
        assert [row.job_id for row in rows["two\nlines 99|x"]] == ["24"]
    assert [row.job_id for row in queued[f'a|b c{MARK}it\'s "q" é']] == ["23"]


def test_memory_that_ran_out_in_a_step_is_seen_at_the_job(accounted):
    assert [row.out_of_memory for row in accounted["oomstep"]] == [True]
    assert [row.out_of_memory for row in accounted["good"]] == [False]


def test_a_newer_sacct_is_read_as_well(newer):
    assert [(row.state, row.exit_code) for row in newer["demo"]] == [("FAILED", 3)]
    assert [row.het_offset for row in newer["het"]] == [0, 1]
    assert [row.array_job for row in newer["arr"]] == ["2", "2"]
    assert observe_state(newer["oom"][0])[1] == (ReasonKind.OUT_OF_MEMORY, "")
    assert [row.started for row in newer["pend"]] == [None]


def squeue_line(**fields):
    given = {"JobID": "7", "JobArrayID": "7", "State": "RUNNING", "Reason": "None", "exit_code": "0"}
    given |= {"RestartCnt": "0", "SubmitTime": "2026-01-02T03:04:05", "StartTime": "2026-01-02T03:04:06"}
    given |= {"EndTime": "N/A", "HetJobID": "N/A", "HetJobOffset": "N/A", "Name": "a", "NodeList": "n1", **fields}
    names = [part.partition(":")[0] for part in SQUEUE_FORMAT[-1].removeprefix("--Format=").split(",")]
    return "".join(given[name] + MARK for name in names) + "\n"


def sacct_line(**fields):
    given = {"JobIDRaw": "7", "JobID": "7", "State": "RUNNING", "ExitCode": "0:0", "Submit": "2026-01-02T03:04:05"}
    given |= {"Start": "2026-01-02T03:04:06", "End": "Unknown", "JobName": "a", "NodeList": "n1", **fields}
    return MARK.join(given[name] for name in SACCT_FORMAT[-1].removeprefix("--format=").split(",")) + "\n"


# Not a name with a row of its own in it: a user who makes one means to deceive himself.
NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r0123456789"), max_size=40)
STATES = st.sampled_from(["PENDING", "RUNNING", "COMPLETING", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL"])


@given(st.lists(st.tuples(NAMES, STATES), max_size=6))
def test_rows_of_squeue_round_trip_whatever_their_names(jobs):
    text = "".join(
        squeue_line(JobID=str(number), JobArrayID=str(number), Name=name, State=state)
        for number, (name, state) in enumerate(jobs)
    )
    assert [(row.job_id, row.name, row.state) for row in parse_squeue(text)] == [
        (str(number), name, state) for number, (name, state) in enumerate(jobs)
    ]


@given(st.lists(st.tuples(NAMES, STATES), max_size=6))
def test_rows_of_sacct_round_trip_whatever_their_names(jobs):
    text = "".join(
        sacct_line(JobIDRaw=str(number), JobID=str(number), JobName=name, State=state)
        for number, (name, state) in enumerate(jobs)
    )
    assert [(row.job_id, row.name, row.state) for row in parse_sacct(text)] == [
        (str(number), name, state) for number, (name, state) in enumerate(jobs)
    ]


@given(st.lists(st.tuples(st.sampled_from(["a", f"a{MARK}b", " "]) | NAMES, STATES), max_size=6))
def test_rows_of_squeue_are_found_by_their_names_before_they_are_read(jobs):
    text = "".join(
        squeue_line(JobID=str(number), JobArrayID=str(number), Name=name, State=state)
        for number, (name, state) in enumerate(jobs)
    )
    rows = parse_squeue(text)
    records = split_squeue(text)
    assert list(records) == list(dict.fromkeys(row.name for row in rows))
    for name, found in records.items():
        assert parse_squeue("\n".join(found)) == [row for row in rows if row.name == name]


@pytest.mark.parametrize("read", [parse_squeue, split_squeue, parse_sacct])
def test_nothing_printed_is_no_rows(read):
    assert read("") == ({} if read is split_squeue else [])


@pytest.mark.parametrize("read", [parse_squeue, split_squeue, parse_sacct])
def test_something_else_than_a_table_is_no_answer(read):
    with pytest.raises(TransientError, match="expected a table"):
        read("Welcome to the cluster!\n")


@pytest.mark.parametrize("read", [parse_squeue, split_squeue, parse_sacct])
def test_a_row_that_is_cut_off_is_no_answer(read):
    with pytest.raises(TransientError, match="cannot be read"):
        read(f"7{MARK}7{MARK}RUNNING{MARK}\n")


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        ("CANCELLED by 1000", "CANCELLED"),
        ("OUT_OF_ME+", "OUT_OF_MEMORY"),
        ("CANCELLED+", "CANCELLED"),
        ("CG", "COMPLETING"),
    ],
)
def test_a_shortened_state_is_known(printed, state):
    assert [row.state for row in parse_sacct(sacct_line(State=printed))] == [state]


def test_incarnations_of_one_job_are_counted():
    text = "".join(sacct_line(State=state) for state in ("REQUEUED", "NODE_FAIL", "COMPLETED"))
    rows = parse_sacct(text)
    assert [(row.state, row.restarts) for row in rows] == [("REQUEUED", 0), ("NODE_FAIL", 1), ("COMPLETED", 2)]


@pytest.mark.parametrize(
    ("printed", "code", "signal"),
    [("768", 3, None), ("9", 0, 9), ("3:0", 3, None), ("0:125", 0, 125), ("N/A", None, None)],
)
def test_how_a_script_ended_is_read_in_both_forms(printed, code, signal):
    [row] = parse_squeue(squeue_line(State="FAILED", exit_code=printed))
    assert (row.exit_code, row.signal) == (code, signal)


def test_an_id_that_was_given_out_again_is_another_job():
    rows = parse_sacct(sacct_line(JobName="a", State="FAILED") + sacct_line(JobName="b"))
    assert [(row.name, row.restarts) for row in rows] == [("a", 0), ("b", 0)]


def test_a_step_belongs_to_the_job_before_it():
    step = {"JobIDRaw": "7.0", "JobID": "7.0", "JobName": "sh", "State": "OUT_OF_ME+"}
    rows = parse_sacct(sacct_line(JobName="a") + sacct_line(JobName="b") + sacct_line(**step))
    assert [(row.name, row.out_of_memory) for row in rows] == [("a", False), ("b", True)]


def test_a_job_of_before_midnight_has_its_own_day():
    [row] = parse_squeue(squeue_line(StartTime="2025-12-31T23:59:59", EndTime="2026-01-01T00:00:01", State="COMPLETED"))
    assert (row.started, row.ended) == ("2025-12-31T23:59:59.000Z", "2026-01-01T00:00:01.000Z")


@pytest.mark.parametrize(
    ("state", "kind", "final"),
    [
        ("TIMEOUT", ReasonKind.TIMEOUT, State.FAILED),
        ("DEADLINE", ReasonKind.TIMEOUT, State.FAILED),
        ("NODE_FAIL", ReasonKind.NODE_FAILURE, State.FAILED),
        ("BOOT_FAIL", ReasonKind.NODE_FAILURE, State.FAILED),
        ("PREEMPTED", ReasonKind.PREEMPTED, State.FAILED),
        ("OUT_OF_MEMORY", ReasonKind.OUT_OF_MEMORY, State.FAILED),
        ("CANCELLED", ReasonKind.BY_USER, State.CANCELLED),
    ],
)
def test_an_end_has_its_reason(state, kind, final):
    found, reason = observe_state(QueueRow(job_id="7", name="a", state=state))
    assert found is final
    assert reason is not None
    assert reason.kind is kind


@pytest.mark.parametrize("state", ["COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "SOMETHING_NEW"])
def test_what_is_no_end_is_not_taken_for_one(state):
    assert observe_state(QueueRow(job_id="7", name="a", state=state)) == (State.RUNNING, None)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("Priority", ReasonKind.WAITING),
        ("Resources", ReasonKind.WAITING),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", ReasonKind.WAITING),
        ("QOSMaxJobsPerUserLimit", ReasonKind.LIMIT),
        ("AssocGrpGRES", ReasonKind.LIMIT),
        ("MaxGRESPerAccount", ReasonKind.LIMIT),
        ("JobArrayTaskLimit", ReasonKind.LIMIT),
        ("BadConstraints", ReasonKind.UNSCHEDULABLE),
        ("PartitionNodeLimit", ReasonKind.UNSCHEDULABLE),
        ("Dependency", ReasonKind.DEPENDENCY),
        ("AccountingPolicy", ReasonKind.LIMIT),
        ("QOSMaxWallDurationPerJobLimit", ReasonKind.UNSCHEDULABLE),
        ("AssocMaxNodePerJobLimit", ReasonKind.UNSCHEDULABLE),
        ("QOSMinCpuNotSatisfied", ReasonKind.UNSCHEDULABLE),
        ("AssocGrpCpuMinutesLimit", ReasonKind.LIMIT),
        ("launch failed requeued held", ReasonKind.WAITING),
        ("SomethingNew", ReasonKind.WAITING),
    ],
)
def test_the_reason_of_a_waiting_job_is_of_a_kind_and_in_slurms_words(word, kind):
    state, reason = observe_state(QueueRow(job_id="7", name="a", state="PENDING", reason=word))
    assert state is State.PENDING
    assert reason is not None
    assert reason.kind is kind
    assert word in reason.detail


@pytest.mark.parametrize("printed", ["22\n", "22;cluster\n", "sbatch: warning: x\n22\n"])
def test_the_number_of_a_submitted_job_is_read(printed):
    assert submitted_id(printed) == "22"


@pytest.mark.parametrize("printed", ["", "\n", "Submitted batch job\n"])
def test_an_answer_without_a_number_is_no_answer(printed):
    with pytest.raises(TransientError):
        submitted_id(printed)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("2026-11-27T01:11:36-0500 using 1 processors on nodes n1 in partition main", "2026-11-27T06:11:36Z on n1"),
        ("2026-11-27T05:10:50+0000 using 2 processors on n[1-2]", "2026-11-27T05:10:50Z on n[1-2]"),  # heterogeneous
        ("Unknown using 1 processors on nodes n1 in partition main", "Unknown on n1"),
    ],
)
def test_a_job_that_was_only_tried_says_when_and_where_it_would_start(said, expected):
    assert tried(f"sbatch: warning: x\nsbatch: Job 13 to start at {said}\n") == f"would start at {expected}"


def test_a_job_that_was_taken_without_a_word_would_be_taken():
    assert tried("") == "would be taken"


def test_a_job_that_was_only_tried_is_refused_in_slurms_words():
    answer = refusal("allocation failure: Requested node configuration is not available\n", 1)
    assert isinstance(answer, Rejected)
    assert answer.reason.detail == "Requested node configuration is not available"
    assert refusal("allocation failure: Unable to contact slurm controller (connect failure)\n", 1) is None


FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    "said",
    [
        FAILED + "Invalid partition name specified",
        FAILED + "Invalid account or account/partition combination specified",
        FAILED + "Requested node configuration is not available",
        FAILED + "Invalid qos specification",
        FAILED + "Requested time limit is invalid (missing or exceeds some limit)",
        "sbatch: error: please give --time\n" + FAILED + "Unspecified error",
        "sbatch: error: Invalid directive found in batch script: x",
        "sbatch: unrecognized option '--segment=4'\nTry \"sbatch --help\" for more information",
        "sbatch: error: invalid number of nodes (-N 0)",
        "sbatch: error: QOSMaxNodePerJobLimit\n"
        + FAILED
        + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ],
)
def test_a_refusal_is_told_in_slurms_words(said):
    answer = refusal(said, 1)
    assert isinstance(answer, Rejected)
    assert answer.reason.detail in said.replace("sbatch: error: ", "").replace("sbatch: ", "").replace("\n", "; ")


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        + FAILED
        + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "sbatch: error: AssocMaxSubmitJobLimit\n"
        + FAILED
        + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
        + FAILED
        + "Resource temporarily unavailable",
    ],
)
def test_a_limit_is_tried_again(said):
    answer = refusal(said, 1)
    assert isinstance(answer, Deferred)
    assert answer.reason.kind is ReasonKind.LIMIT


@pytest.mark.parametrize(
    "said",
    [
        FAILED + "Socket timed out on send/recv operation",
        FAILED + "Unable to contact slurm controller (connect failure)",
        FAILED + "Zero Bytes were transmitted or received",
        FAILED + "Transport endpoint is not connected",
        FAILED + "Protocol authentication error",
        FAILED + "Invalid authentication credential",
        FAILED + "Slurm backup controller in standby mode",
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
        "sbatch: error: fetch_config: DNS SRV lookup failed\nsbatch: fatal: Could not establish a configuration source",
        "sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Munge encode failed",
        "ssh: connect to host login port 22: Connection refused",
        "",
    ],
)
def test_a_broken_connection_is_no_refusal(said):
    assert refusal(said, 1) is None


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: unrecognized option '--segment=4'\nTry \"sbatch --help\" for more information",
        "sbatch: error: Invalid directive found in batch script: x",
        "sbatch: error: Invalid --time specification",
        'sbatch: error: "x" is not a valid node count',
    ],
)
def test_sbatchs_own_reader_ends_as_ssh_does_and_is_believed(said):
    assert isinstance(refusal(said, 255), Rejected)


@pytest.mark.parametrize("code", [-9, 0, 126, 127, 255])
def test_a_killed_or_missing_sbatch_is_no_refusal(code):
    assert refusal(FAILED + "Invalid partition name specified", code) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("srun: error: n3: task 0: Out Of Memory\n", ReasonKind.OUT_OF_MEMORY),
        (
            "Killed\nslurmstepd-n3: error: Detected 1 oom-kill event(s) in StepId=30.0. Some of your processes may "
            "have been killed by the cgroup out-of-memory handler.\n",
            ReasonKind.OUT_OF_MEMORY,
        ),
        ("slurmstepd: error: pyxis: failed to import docker image\n", ReasonKind.IMAGE),
        ("slurmstepd: error: pyxis: couldn't start container\n", ReasonKind.IMAGE),
        ("FATAL:   could not open image /home/me/a.sif: no such file or directory\n", ReasonKind.IMAGE),
        ("srun: unrecognized option '--container-image=a'\n", ReasonKind.REJECTED),
        (
            "srun: error: Unable to create step for job 40: More processors requested than permitted\n",
            ReasonKind.REJECTED,
        ),
        ("srun: error: n1: task 0: Exited with exit code 3\n", None),
        ("echo of the user's: Out Of Memory\n", None),
        ("", None),
    ],
)
def test_the_scripts_output_is_a_witness_where_nothing_is_accounted(text, kind):
    reason = output_reason(text)
    assert (reason.kind if reason else None) is kind


def test_every_word_for_a_state_is_one_of_three():
    """None of Slurm's words is taken for two things at once."""
    from nemorun_slurm import parse

    groups = [parse._WAITING, parse._RUNNING, parse._KNOWN - parse._WAITING - parse._RUNNING]
    assert all(not first & second for first, second in itertools.combinations(groups, 2))
