"""Many equal jobs as one array, without a cluster: which go together, script, map, and what a refusal leads to.

`python plugins/slurm/tests/test_arrays.py` writes the golden files anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.arrays import LEAST, sort_out
from nemorun_slurm.backend import SlurmBackend
from nemorun_slurm.calls import Batches, Call, array_of
from nemorun_slurm.commands import Commands, Result
from nemorun_slurm.executor import LARGEST_ARRAY
from nemorun_slurm.files import LocalFiles
from nemorun_slurm.quoting import comment
from nemorun_slurm.script import Layout, array_script, array_task, batch_script
from nemorun_slurm.sending import Sender
from nemorun_slurm.tunnel import LocalTunnel

import nemorun_core as run
from nemorun_core import (
    Accepted,
    After,
    Condition,
    Deferred,
    Key,
    Member,
    Rejected,
    Secret,
    Submission,
    TransientError,
)

GOLDEN = Path(__file__).with_name("golden")
LIMIT = (
    b"sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size)"
)
TOO_LARGE = b"sbatch: error: Batch job submission failed: Invalid job array specification"
NO_PARTITION = (
    b"sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition"
)
FIELDS = st.fixed_dictionaries(
    {}, optional={"time": st.just("5"), "job_name_prefix": st.just("p"), "requeue": st.just(2)}
)


def submission(name, folder="/home/me/exp", executor=None, nonce="0123456789abcdef", members=1, **member):
    made = Member(**{"argv": ("true",), "environment": {}, "cwd": "/home/me/project", **member})
    return Submission(
        key=Key(nonce, name, 0),
        members=(made,) * members,
        executors=(executor or SlurmExecutor(),) * members,
        folder=os.path.join(folder, name),
        support=os.path.join(folder, "support"),
    )


def several(amount=30, **more):
    return [submission(f"job{number}", argv=("echo", str(number)), **more) for number in range(amount)]


class TestWhichGoTogether:
    @given(st.lists(st.tuples(st.integers(0, 2), FIELDS, st.booleans()), max_size=60))
    def test_each_job_goes_out_once_and_only_with_its_equals(self, kinds):
        jobs = [
            submission(f"job{number}", argv=("echo", str(number)), executor=SlurmExecutor(**fields), members=1 + paired)
            for number, (_, fields, paired) in enumerate(kinds)
        ]
        arrays, alone = sort_out(jobs)
        assert sorted([job.key for array in arrays for job in array] + [job.key for job in alone]) == sorted(
            job.key for job in jobs
        )
        numbered = {job.key: number for number, job in enumerate(jobs)}
        for some in (*arrays, alone):
            assert [numbered[job.key] for job in some] == sorted(numbered[job.key] for job in some)
        for array in arrays:
            assert len(array) >= LEAST
            assert len({str(job.executors) for job in array}) == 1
            assert all(len(job.members) == 1 for job in array)
        left = [str(job.executors) for job in alone if len(job.members) == 1]
        assert all(left.count(one) < LEAST for one in left)

    def test_command_arguments_environment_and_attempt_may_differ(self):
        jobs = [
            attrs.evolve(
                submission(
                    f"job{number}",
                    argv=("echo", str(number)),
                    environment={"A": str(number)},
                    executor=SlurmExecutor(env_vars={"A": str(number)}),
                ),
                key=Key("0123456789abcdef", f"job{number}", number % 2),
            )
            for number in range(LEAST)
        ]
        assert sort_out(jobs) == ([jobs], [])

    @pytest.mark.parametrize(
        "odd",
        [
            {"cwd": "/elsewhere"},
            {"executor": SlurmExecutor(timeout_seconds=5.0)},
            {"executor": SlurmExecutor(setup_lines="module load cuda")},
            {"environment": {"TOKEN": Secret.from_env("TOKEN")}},
            {"folder": "/home/me/another"},
            {"members": 2},
        ],
        ids=lambda odd: next(iter(odd)),
    )
    def test_an_odd_one_goes_alone(self, odd):
        jobs = [*several(LEAST), submission("odd", **odd)]
        assert sort_out(jobs) == ([jobs[:-1]], jobs[-1:])

    def test_a_job_that_the_scheduler_holds_back_goes_alone(self):
        edge = After(Key("0" * 16, "up", 0), Condition.SUCCESS, "up", "/up", (1,))
        jobs = [attrs.evolve(job, after=(edge,)) for job in several()]
        assert sort_out(jobs) == ([], jobs)

    def test_no_array_is_larger_than_slurm_usually_takes(self):
        arrays, alone = sort_out(several(2 * LARGEST_ARRAY + LEAST - 1))
        assert [len(array) for array in arrays] == [LARGEST_ARRAY, LARGEST_ARRAY]
        assert len(alone) == LEAST - 1


def golden_array():
    executor = SlurmExecutor(partition="short", time="10", requeue=3, open_mode="truncate", setup_lines="module load a")
    jobs = [
        submission("plain", executor=executor),
        submission("a hostile 'one'\n", executor=executor, argv=("a\nb 'c'", "$HOME", ""), environment={"T": "1\n2"}),
    ]
    call, _ = array_of(jobs)
    layouts = [Layout(folder=job.folder, support=job.support) for job in jobs]
    script = array_script(
        jobs[0], name=call.name, mark=call.mark, size=2, tasks=f"/home/me/exp/batches/{call.name}.tasks"
    )
    return {"array.sbatch": script, "array.tasks": "".join(map(array_task, jobs, layouts))}


@pytest.mark.parametrize("name", ["array.sbatch", "array.tasks"])
def test_the_text_of_an_array_is_what_it_was(name):
    assert golden_array()[name] == (GOLDEN / name).read_text()


def test_a_task_is_what_the_job_would_be_by_itself():
    """Head and start differ; how a member is started does not."""
    [job] = several(1, executor=SlurmExecutor(nodes=2, ntasks_per_node=2, separate_stderr=True))
    layout = Layout(folder=job.folder, support=job.support)
    alone = batch_script(job, layout)
    step = array_task(job, layout).partition("{ ")[2].rpartition("; }")[0]
    assert step in alone.replace(" \\\n    ", " ")
    script = array_script(job, name="a", mark="# m", size=9, tasks="/t/a.tasks")
    middle = alone[alone.index("export NEMORUN_MEMBER_0_HOST") : alone.index("(# member 0")]
    assert middle in script
    assert script.endswith(alone[alone.index("trap : TERM") :])


class TestMaps:
    def jobs(self, tmp_path, amount=3):
        return several(amount, folder=str(tmp_path))

    def test_a_new_connection_finds_which_task_a_job_was(self, tmp_path):
        jobs = self.jobs(tmp_path)
        call, is_new = Batches().write(jobs)
        call.remember("7")
        again = Batches()
        again.read(jobs)
        assert is_new
        assert [[list(place.ids) for place in again.places(job.key)] for job in jobs] == [
            [["7_0"]],
            [["7_1"]],
            [["7_2"]],
        ]
        assert again.places(jobs[0].key)[0].call.mark == call.mark

    def test_the_same_jobs_are_the_same_array_and_others_another(self, tmp_path):
        jobs, batches = self.jobs(tmp_path), Batches()
        first, _ = batches.write(jobs)
        assert batches.write(jobs) == (first, False)
        other, _ = batches.write(jobs[1:])
        assert (other.name != first.name, other.mark != first.mark) == (True, True)
        assert [place.task for place in batches.places(jobs[1].key)] == ["1", "0"]

    def test_what_was_surely_not_taken_is_forgotten(self, tmp_path):
        jobs, batches = self.jobs(tmp_path), Batches()
        call, _ = batches.write(jobs)
        batches.forget(call)
        assert [*batches.places(jobs[0].key)] == []
        assert os.listdir(tmp_path / "batches") == []

    def test_a_map_that_cannot_be_read_is_named(self, tmp_path):
        jobs = self.jobs(tmp_path)
        call, _ = Batches().write(jobs)
        (tmp_path / "batches" / f"{call.name}.json").write_text("[]")
        with pytest.raises(TransientError, match=call.name):
            Batches().read(jobs)

    def test_its_name_is_short_safe_and_begins_as_asked(self, tmp_path):
        executor = SlurmExecutor(job_name_prefix="me.")
        call, _ = array_of([submission("☃" * 200, executor=executor), submission("b", executor=executor)])
        assert call.name.startswith("me.")
        assert len(call.name) <= 128
        assert call.mark == comment(call.mark[2:])


class Sbatch(Commands):
    """Takes arrays of at most `most` tasks, and `room` tasks in all; notes what sizes it was given, 0 for no array."""

    def __init__(self, most=10_000, room=10_000, refusal=b""):
        self.most, self.room, self.refusal = most, room, refusal
        self.sizes = []
        self.asked = []

    def run(self, argv, *, stdin=b"", **options):
        self.asked.append(argv[0])
        if argv[0] != "sbatch":
            return Result(0, b"ClusterName = c\n" if argv[0] == "scontrol" else b"", "")
        array = [line for line in stdin.decode().splitlines() if line.startswith("#SBATCH --array=0-")]
        size = int(array[0].partition("-0-")[2] or array[0].rpartition("-")[2]) + 1 if array else 0
        self.sizes.append(size)
        if self.refusal:
            return Result(1, b"", self.refusal.decode())
        if size > self.most:
            return Result(1, b"", TOO_LARGE.decode())
        if max(size, 1) > self.room:
            return Result(1, b"", LIMIT.decode())
        self.room -= max(size, 1)
        return Result(0, b"%d\n" % len(self.sizes), "")

    def _call(self, argv, environment, without):
        raise NotImplementedError

    def _checked(self, name, result):
        return result


class TestRefusals:
    @pytest.fixture
    def sent(self, tmp_path):
        """Return what gives so many equal jobs to a sbatch, and says how it answered."""

        def send(sbatch, amount, sender=None):
            files = LocalFiles(str(tmp_path))
            sender = sender or Sender(sbatch, files, Batches())
            jobs = several(amount, folder=str(tmp_path))
            files.send([(job, None) for job in jobs])
            answers = sender.send_array({job.key: (job, sender.task(job)) for job in jobs})
            assert list(answers) == [job.key for job in jobs]
            return sender, [type(answer) for answer in answers.values()]

        return send

    def test_one_call_is_enough(self, sent):
        sbatch = Sbatch()
        assert sent(sbatch, 30)[1] == [Accepted] * 30
        assert sbatch.sizes == [30]

    def test_an_array_over_the_largest_goes_out_in_parts_and_that_is_learned(self, sent):
        sbatch = Sbatch(most=9)
        sender, answers = sent(sbatch, 30)
        assert answers == [Accepted] * 30
        assert sbatch.sizes == [30, 15, 7, 7, 7, 7, 2]
        sbatch.sizes.clear()
        assert sent(sbatch, 14, sender)[1] == [Accepted] * 14
        assert max(sbatch.sizes) <= 7

    def test_where_there_are_no_arrays_jobs_go_out_alone(self, sent):
        sbatch = Sbatch(most=0)
        assert sent(sbatch, 10)[1] == [Accepted] * 10
        assert sbatch.sizes[-10:] == [0] * 10

    def test_a_limit_on_jobs_is_filled_and_the_rest_waits(self, sent, tmp_path):
        sbatch = Sbatch(room=11)
        _, answers = sent(sbatch, 30)
        assert answers == [Accepted] * 11 + [Deferred] * 19
        maps = [json.loads(path.read_text()) for path in (tmp_path / "batches").glob("*.json")]
        assert sum(map(len, maps)) <= 11, "a map of what was refused is left"

    def test_when_there_is_room_again_arrays_grow_again(self, sent):
        sbatch = Sbatch(room=0)
        sender, answers = sent(sbatch, 200)
        assert answers == [Deferred] * 200
        sbatch.room, sbatch.sizes = 1000, []
        assert sent(sbatch, 200, sender)[1] == [Accepted] * 200
        assert len(sbatch.sizes) < 9

    def test_what_is_wrong_with_one_is_wrong_with_all(self, sent):
        sbatch = Sbatch(refusal=NO_PARTITION)
        assert sent(sbatch, 100)[1] == [Rejected] * 100
        assert len(sbatch.sizes) < 9

    def test_a_map_whose_answer_was_lost_stays_when_its_second_call_is_refused(self, sent, tmp_path):
        """The first call may still be taken."""
        lost = Sbatch(refusal=b"sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
        batches = Batches()
        with pytest.raises(TransientError):
            sent(lost, 10, Sender(lost, LocalFiles(str(tmp_path)), batches))
        jobs = several(10, folder=str(tmp_path))
        full = Sbatch(room=0)
        sent(full, 10, Sender(full, LocalFiles(str(tmp_path)), batches))
        assert [len(batches.places(job.key)) for job in jobs] == [1] * 10


def test_a_call_answers_for_some_jobs_and_leaves_the_others_for_the_next(tmp_path, monkeypatch):
    """Whoever cancels is not to wait for a thousand calls of sbatch."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = SlurmBackend(LocalTunnel())
    sbatch = backend._commands = Sbatch()
    backend._queue._commands = backend._sender._commands = sbatch
    (tmp_path / "support").mkdir()
    different = [
        submission(f"job{number}", folder=str(tmp_path), executor=SlurmExecutor(time=str(number + 1)))
        for number in range(100)
    ]
    equal = several(500, folder=str(tmp_path))
    equal = [
        attrs.evolve(job, key=job.key._replace(job=f"equal{job.key.job}"), folder=f"{job.folder}e") for job in equal
    ]
    answered = [key for key, _ in backend.submit([*different, *equal])]
    assert answered == [job.key for job in (*different[:64], *equal)]
    assert sorted(sbatch.sizes) == [0] * 64 + [500]
    # These were looked for when the others were, and not sent then.
    assert [key for key, _ in backend.submit(different)] == [job.key for job in different]
    assert sbatch.asked.count("squeue") == 1
    backend.close()


@pytest.mark.parametrize("seconds", [1, 60])
def test_what_was_sent_or_not_looked_for_lately_is_looked_for_before_it_is_submitted(tmp_path, monkeypatch, seconds):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = SlurmBackend(LocalTunnel())
    sbatch = backend._commands = Sbatch(refusal=b"Socket timed out on send/recv operation")
    backend._queue._commands = backend._sender._commands = sbatch
    (tmp_path / "support").mkdir()
    jobs = [
        submission(f"job{number}", folder=str(tmp_path), executor=SlurmExecutor(time=str(number + 1)))
        for number in range(65)
    ]
    with pytest.raises(TransientError):
        list(backend.submit(jobs))
    clock = time.monotonic() + seconds
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    sbatch.refusal = b""
    assert len(list(backend.submit(jobs[-1:]))) == 1
    assert sbatch.asked.count("squeue") == 1 + (seconds == 60)
    list(backend.submit(jobs[:1]))
    assert sbatch.asked.count("squeue") == 2 + (seconds == 60)
    backend.close()


def test_a_dry_run_shows_an_array_once_and_what_waits_by_itself(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("NEMORUN_HOME", str(tmp_path))
    with run.Experiment("dry", SlurmExecutor(time="5"), log_level="ERROR") as experiment:
        experiment.add(run.Script(inline="true"), executor=SlurmExecutor(time="7"), name="odd")
        for number in range(9):
            experiment.add(run.Script(inline=f"exit {number}"), name=f"job{number}")
        experiment.add(run.Script(inline="true"), name="last", dependencies=["job0"])
        experiment.dryrun()
    tasks = [part.partition("\n") for part in capsys.readouterr().out.split("Task ")[1:]]
    assert [head for head, _, _ in tasks] == ["0: odd", *(f"{n + 1}: job{n}" for n in range(9)), "10: last"]
    shown = [text for _, _, text in tasks]
    assert "#SBATCH --job-name=odd-" in shown[0]
    assert ("#SBATCH --array=0-8" in shown[1], shown[1].count("NEMORUN_member() {")) == (True, 9)
    assert shown[2:10] == ["--- in one call with job0\n\n"] * 8
    assert ("#SBATCH --job-name=last-" in shown[10], "--array" in shown[10]) == (True, False)


def test_bash_understands_the_array():
    script = golden_array()["array.sbatch"]
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_mark_of_an_array_is_no_key_of_a_job():
    call, _ = array_of(several(2))
    assert call.mark not in {Call.single(job).mark for job in several(2)}


if __name__ == "__main__":
    for golden, text in golden_array().items():
        (GOLDEN / golden).write_text(text)
