"""Logs of jobs that do not share files: every byte comes into the job's folder, once, whoever was interrupted."""

from __future__ import annotations

import os
from types import SimpleNamespace

import attrs
import pytest
from nemorun_devkit.simulator import Fails, Preempted, Scenario, SimulatedExecutor, Succeeds, simulate

import nemorun_core as run
from nemorun_core.engine import collecting
from nemorun_core.engine.collecting import Collector, collect


class Logs(run.Backend):
    """Has logs, by incarnation, member and stream; counts what it is asked."""

    def __init__(self, **streams):
        self.streams = streams
        self.asked = []

    def read_log(self, handle, member, stream, offset, limit, incarnation):
        self.asked.append((stream, offset))
        found = self.streams.get(f"{stream.replace('.', '_')}_{member}_{incarnation}", b"")
        if isinstance(found, Exception):
            raise found
        return found[offset : offset + limit]

    def render(self, job): ...
    def submit(self, jobs): ...
    def find(self, jobs): ...
    def poll(self, handles): ...
    def cancel(self, handles): ...


@attrs.define(kw_only=True)
class Ranked(SimulatedExecutor):
    def ranks(self):
        return 2


def submission(tmp_path, executor, members=1):
    member = run.Member(argv=("x",), environment={}, cwd="/")
    folder = str(tmp_path / "job")
    return run.Submission(
        key=run.Key("0" * 16, "job", 1),
        members=(member,) * members,
        executors=(executor,) * members,
        folder=folder,
        support=folder,
    )


def written(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "job").glob("*")}


def test_every_stream_of_every_rank_and_member_comes(tmp_path):
    backend = Logs(out_0_0=b"a", err_0_0=b"b", out_1_0_0=b"c", err_1_0_0=b"d", out_1_0=b"e")
    collect(backend, "h", submission(tmp_path, Ranked(separate_stderr=True), 2), 0, ended=True)
    assert written(tmp_path) == {
        "1.0.0.out": b"a", "1.0.0.err": b"b", "1.0.0.out.1": b"c", "1.0.0.err.1": b"d", "1.0.1.out": b"e",
    }  # fmt: skip


def test_a_log_that_is_here_in_part_is_read_from_there_on(tmp_path):
    job = submission(tmp_path, SimulatedExecutor())
    backend = Logs(out_0_0=b"first ")
    collect(backend, "h", job, 0, ended=False)
    backend.streams["out_0_0"] += b"second"
    backend.asked.clear()
    collect(backend, "h", job, 0, ended=True)
    assert backend.asked == [("out", 6), ("out", 12)]
    assert written(tmp_path) == {"1.0.0.out": b"first second"}


def test_what_still_runs_costs_one_question_and_what_has_ended_is_read_whole(tmp_path):
    job, large = submission(tmp_path, SimulatedExecutor()), bytes(range(256)) * 10_000
    backend = Logs(out_0_0=large)
    collect(backend, "h", job, 0, ended=False)
    assert len(backend.asked) == 1
    collect(backend, "h", job, 0, ended=True)
    assert written(tmp_path)["1.0.0.out"] == large


def test_a_driver_that_was_overtaken_meanwhile_doubles_nothing(tmp_path):
    """Both read the same piece; the second write finds the file longer than it was."""
    job = submission(tmp_path, SimulatedExecutor())
    backend = Logs(out_0_0=b"0123456789")
    collect(Beside(backend, lambda: collect(backend, "h", job, 0, ended=True)), "h", job, 0, ended=True)
    assert written(tmp_path) == {"1.0.0.out": b"0123456789"}


class Beside(Logs):
    """Lets another driver act between a read and what follows from it."""

    def __init__(self, backend, act):
        self.backend, self.act = backend, act

    def read_log(self, *arguments):
        data = self.backend.read_log(*arguments)
        act, self.act = self.act, lambda: None
        act()
        return data


def test_a_log_of_no_bytes_makes_no_file_and_logs_are_owner_only(tmp_path):
    job = submission(tmp_path, SimulatedExecutor(separate_stderr=True))
    collect(Logs(out_0_0=b"a"), "h", job, 0, ended=True)
    assert list(written(tmp_path)) == ["1.0.0.out"]
    assert os.stat(tmp_path / "job" / "1.0.0.out").st_mode & 0o777 == 0o600


def test_a_scheduler_that_does_not_answer_and_a_disk_that_refuses_are_told(tmp_path):
    job = submission(tmp_path, SimulatedExecutor())
    with pytest.raises(run.TransientError, match="down"):
        collect(Logs(out_0_0=run.TransientError("down")), "h", job, 0, ended=True)
    (tmp_path / "job").write_text("a file stands here")
    with pytest.raises(run.StoreError, match="job"):
        collect(Logs(out_0_0=b"a"), "h", job, 0, ended=True)


def test_the_logs_of_all_incarnations_and_attempts_are_here_when_the_job_has_ended():
    executor = SimulatedExecutor(shares_files=False, retries=1)
    with run.Experiment("far", executor) as experiment:
        experiment.add(run.Script(inline="train"), name="train")
        result = simulate(
            experiment, Scenario({"train": [Preempted(after=5, then=Fails(3, after=7)), Succeeds(after=9)]})
        )
    assert list(result.brought.values()) == [
        b"train 0.0.0 begins\n",
        b"train 0.1.0 begins\ntrain 0.1.0 ends with 3\n",
        b"train 1.0.0 begins\ntrain 1.0.0 ends with 0\n",
    ]


def test_a_slow_scheduler_is_not_asked_for_all_logs_at_once_and_none_waits_for_ever(monkeypatch, tmp_path):
    moment, brought = [0.0], []
    monkeypatch.setattr(collecting, "time", SimpleNamespace(monotonic=lambda: moment[0]))

    def slowly(backend, handle, job, incarnation, *, ended):
        moment[0] += 0.9
        brought.append(handle)

    monkeypatch.setattr(collecting, "collect", slowly)
    collector, handles = Collector(), ["a", "b", "c", "d", "e"]
    for handle in handles:
        collector.add(handle, submission(tmp_path, SimulatedExecutor()))
    running = run.Observation(members=(run.MemberObservation(state=run.State.RUNNING),))
    collector.follow(Logs(), dict.fromkeys(handles, running))
    assert brought == ["a", "b", "c"]
    collector.follow(Logs(), dict.fromkeys(handles, running))
    assert brought[3:] == ["d", "e", "a"]
