"""Rare turns of the driver: what was asked before it took over, disks that refuse, requests that say little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import nemorun_core as run
from nemorun_core.engine import loop, supervisor
from nemorun_core.engine.events import Asked, Delayed, Intended, Observed, Submitted, Warned
from nemorun_core.engine.loop import Engine, _reason
from nemorun_core.engine.settle import look
from nemorun_core.engine.state import Act, Graph
from nemorun_core.experiment.session import Session
from nemorun_core.model.state import Reason, ReasonKind
from nemorun_core.registry import default_registry
from nemorun_core.store.journal import JournalWriter
from nemorun_core.store.lock import Lock
from nemorun_core.store.requests import Request
from tests.engine.graphs import define, ended, job, running
from tests.experiment.helpers import sh, states, wait_for


@attrs.define(kw_only=True)
class OneFile(run.Packager):
    def collect(self, cwd):
        return run.Contents([run.PackagedFile("a", content=b"echo ran")])


def test_a_request_with_an_unknown_reason_is_the_users():
    assert _reason(Request(("a",), "by moonlight", "x")) == Reason(ReasonKind.BY_USER, "x")
    assert _reason(Request(("a",), "interrupt")) == Reason(ReasonKind.INTERRUPT)


def gate(tmp_path):
    return sh(f"echo up; until [ -e '{tmp_path}/gate' ]; do sleep 0.01; done")


def orphan(experiment, job):
    """Kill the detached driver of an experiment while a job of it runs."""
    wait_for(lambda: states(experiment)[job] == "RUNNING")
    os.kill(experiment._session.driver()["pid"], 9)
    wait_for(lambda: experiment._session.driver() is None)


def test_what_was_asked_of_the_last_driver_is_done_by_the_next(tmp_path):
    """It wrote the request into its journal, and died before the backend heard of it."""
    with run.Experiment("asked", log_level="WARNING") as experiment:
        experiment.add(gate(tmp_path), name="runs")
        experiment.run(detach=True)
    folder = experiment._session.folder
    orphan(experiment, "runs")
    lock = Lock(folder.lock)
    assert lock.acquire()
    journal = JournalWriter(folder.journal)
    journal.append(loop.dump(Asked(("runs",), Reason(ReasonKind.BY_USER)), loop.now(), lock.epoch))
    journal.flush()
    journal.close()
    lock.release()
    session = Session(folder.read_definition(), folder, default_registry())
    assert lock.acquire()
    engine = Engine(session.definition, folder, default_registry(), lock)
    engine.start()
    assert engine.wait(30)
    assert states(experiment) == {"runs": "CANCELLED"}


def test_a_driver_on_a_full_disk_unpacks_later_and_says_so_once(tmp_path, monkeypatch):
    refused, real = [], loop.Builder.unpack

    def full(self, job):
        if len(refused) < 2:
            refused.append(job.id)
            raise run.StoreError("cannot unpack: No space left on device.")
        real(self, job)

    monkeypatch.setattr(loop, "_DISK_SECONDS", 0.01)
    monkeypatch.setattr(loop.Builder, "unpack", full)
    said = []
    with run.Experiment("full", log_level="WARNING") as experiment:
        experiment.add(run.Script("a"), run.LocalExecutor(packager=OneFile()), name="job")
        monkeypatch.setattr("nemorun_core.display.console.Console.warn", lambda self, text: said.append(text))
        experiment.run()
    assert states(experiment) == {"job": "SUCCEEDED"}
    assert refused == ["job", "job"]
    assert len([text for text in said if "Nothing new is started" in text]) == 1


def test_an_intent_that_cannot_be_synced_is_no_intent(tmp_path, monkeypatch):
    real, refused = JournalWriter.flush, []

    def flush(self, *, sync=False):
        if sync and len(refused) < 2:
            refused.append(1)
            raise run.StoreError("cannot write: No space left on device.")
        real(self, sync=sync)

    monkeypatch.setattr(loop, "_DISK_SECONDS", 0.01)
    monkeypatch.setattr(JournalWriter, "flush", flush)
    with run.Experiment("sync", log_level="ERROR") as experiment:
        experiment.add(sh("echo ran"), name="job")
        experiment.run()
    assert states(experiment) == {"job": "SUCCEEDED"}
    assert len(refused) == 2


def test_a_driver_that_breaks_says_so_and_what_to_do(monkeypatch):
    def broken(self, event):
        raise RuntimeError("odd")

    monkeypatch.setattr(Graph, "is_news", broken)
    experiment = run.Experiment("breaks", log_level="ERROR")
    experiment.__enter__()
    experiment.add(sh("true"))
    experiment.run()
    with pytest.raises(run.Defect, match=r"the driver of .* broke: RuntimeError: odd") as caught:
        experiment.__exit__(None, None, None)
    assert "nemorun experiment resume" in caught.value.hint
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_look_that_breaks_is_not_taken_for_an_answer(tmp_path, monkeypatch):
    with run.Experiment("looks", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path), name="runs")
        experiment.run(detach=True)
    session = experiment._session
    orphan(experiment, "runs")
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_begin", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            look(session.definition, session.folder, default_registry())
    (tmp_path / "gate").touch()
    wait_for(lambda: states(experiment)["runs"] == "SUCCEEDED")


# The supervisor.


@pytest.fixture
def driven(tmp_path):
    """An experiment whose lock is held by this process."""
    with run.Experiment("held", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    folder = experiment._session.folder
    lock = Lock(folder.lock)
    assert lock.acquire()
    yield folder
    lock.release()


def test_a_supervisor_that_cannot_drive_says_why(driven):
    with pytest.raises(run.StoreError, match="did not start: another driver lives"):
        supervisor.detach(driven)


def test_a_supervisor_that_dies_at_once_is_told_by_its_exit_code(driven, monkeypatch):
    monkeypatch.setattr(supervisor, "_START", "import sys; sys.exit(3)")
    with pytest.raises(run.StoreError, match="it ended with exit code 3"):
        supervisor.detach(driven)


@pytest.mark.parametrize(("error", "words"), [("RuntimeError('odd')", "RuntimeError: odd"), ("None", "")])
def test_what_breaks_a_supervisor_stands_in_its_log(tmp_path, error, words):
    with run.Experiment("broken", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    folder = experiment._session.folder.path
    code = (
        "import sys\n"
        "from nemorun_core.engine import supervisor\n"
        f"def ended(self, timeout=None): self.error = {error}; return True\n"
        "supervisor.Engine.wait = ended\n"
        f"sys.exit(supervisor.main([{folder!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if words else 0)
    assert words in done.stderr


# The state.


def test_an_observation_of_an_earlier_incarnation_changes_nothing(tmp_path):
    with run.Experiment("one", log_level="ERROR") as experiment:
        experiment.add(sh("true"), name="a")
        experiment.run()
    graph = Graph(experiment._session.definition)
    graph.step(Intended((("a", 0),)), "t")
    graph.step(Submitted("a", 0, "h"), "t")
    graph.step(Observed("a", 0, 1, (running(),)), "t")
    assert graph.step(Observed("a", 0, 0, (ended(),)), "t") == []
    assert graph.jobs["a"].incarnation == 1


def test_a_delay_of_a_job_that_was_taken_changes_nothing():
    with run.Experiment("one", log_level="ERROR") as experiment:
        experiment.add(sh("true"), name="a")
        experiment.run()
    graph = Graph(experiment._session.definition)
    graph.step(Submitted("a", 0, "h"), "t")
    assert graph.step(Delayed((("a", 0),), Reason(ReasonKind.LIMIT)), "t") == []
    assert graph.step(Warned("x"), "t") == []
    assert [act for act, _ in graph.step(Asked(("a",), Reason(ReasonKind.BY_USER)), "t")] == [Act.CANCEL]


# Sessions.


def test_a_run_in_process_cannot_be_resumed(tmp_path):
    with run.Experiment("direct", log_level="ERROR") as experiment:
        experiment.add(run.Partial(divmod, 1, 0), name="a")
        with pytest.raises(ZeroDivisionError):
            experiment.run(direct=True)
    folder = experiment._session.folder
    text = Path(folder.journal).read_text().splitlines(keepends=True)
    Path(folder.journal).write_text("".join(text[:3]))  # as if it had been killed meanwhile
    session = Session(folder.read_definition(), folder, default_registry())
    with pytest.raises(run.UsageError, match="ran inside its own process"):
        session.check_resumable()


def test_a_run_that_lives_is_not_resumed_by_itself(tmp_path):
    with run.Experiment("lives", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path))
        experiment.run()
        with pytest.raises(run.UsageError, match="driven by this process already"):
            experiment.resume()
        (tmp_path / "gate").touch()
    with run.Experiment("both") as both:
        both.add(sh("true"))
        with pytest.raises(run.UsageError, match="which detach leaves"):
            both.run(direct=True, detach=True)


def test_an_id_that_a_dry_run_gave_back_and_another_took_is_drawn_anew():
    with run.Experiment("taken", log_level="ERROR") as experiment:
        experiment.add(sh("true"), name="a")
        experiment.dryrun()
        first = experiment.id
        with run.Experiment("taken", id=first, log_level="ERROR") as other:
            other.add(sh("true"))
            other.run()
        experiment.run()
    assert experiment.id != first
    assert states(experiment) == {"a": "SUCCEEDED"}


def test_equal_executors_are_written_once_however_many_lie_between():
    with run.Experiment("table", log_level="ERROR") as experiment:
        for number in [*range(12), 0]:
            experiment.add(sh("true"), run.LocalExecutor(env_vars={"N": str(number)}))
        experiment.run()
    assert len(experiment._session.definition.executors) == 12


def test_a_pickle_that_is_gone_is_a_store_error(tmp_path):
    from nemorun_core.experiment.restore import given_jobs

    def local():
        pass

    with run.Experiment("sent", log_level="ERROR") as experiment:
        experiment.add(run.Partial(local))
        experiment.run()
    session = experiment._session
    assert given_jobs(session.definition, session.folder, default_registry(), resolved=True)
    for path in Path(session.folder.objects).iterdir():
        path.unlink()
    with pytest.raises(run.StoreError, match="cannot read"):
        given_jobs(session.definition, session.folder, default_registry(), resolved=True)


def test_a_user_without_a_name_is_known_by_number(monkeypatch):
    import pwd

    from nemorun_core.experiment import provenance

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert provenance._user() == str(os.getuid())


def test_the_package_of_experiments_has_no_other_names():
    import nemorun_core.experiment as package

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_a_job_that_is_cancelled_while_its_bundle_cannot_be_unpacked_ends(monkeypatch):
    def full(self, job):
        raise run.StoreError("cannot unpack: No space left on device.")

    monkeypatch.setattr(loop.Builder, "unpack", full)
    with run.Experiment("full", log_level="ERROR") as experiment:
        experiment.add(run.Script("a"), run.LocalExecutor(packager=OneFile()), name="job")
        experiment.run()
        wait_for(lambda: experiment._session.engine._stuck_by == "bundle")
        experiment.cancel("job")
    assert states(experiment) == {"job": "CANCELLED"}


# Looking.


def test_two_that_look_at_once_do_not_wait_for_each_other(tmp_path, monkeypatch):
    from nemorun_core.engine import settle

    with run.Experiment("two", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path), name="runs")
        experiment.run(detach=True)
    session = experiment._session
    orphan(experiment, "runs")
    first = Lock(session.folder.lock, settles=True)
    assert first.acquire()
    monkeypatch.setattr(settle, "driver_lives", lambda folder: False)  # the second looked just before the first began
    view = look(session.definition, session.folder, default_registry())
    assert view.graph.jobs["runs"].state is run.State.RUNNING
    first.release()
    (tmp_path / "gate").touch()
    wait_for(lambda: states(experiment)["runs"] == "SUCCEEDED")


def test_one_of_two_jobs_is_cancelled_beside_a_driver(tmp_path):
    from nemorun_core.engine.settle import cancel_beside

    with run.Experiment("beside", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path), name="stays")
        experiment.add(sh("echo up; sleep 60"), name="goes")
        experiment.run()
        session = experiment._session
        wait_for(lambda: set(states(experiment).values()) == {"RUNNING"})
        cancel_beside(session.definition, session.folder, default_registry(), ["goes"])
        wait_for(lambda: states(experiment)["goes"] != "RUNNING")
        assert states(experiment)["stays"] == "RUNNING"
        (tmp_path / "gate").touch()
    assert states(experiment)["stays"] == "SUCCEEDED"


@attrs.define(kw_only=True)
class Away(run.LocalExecutor):
    """As a cluster: what it runs does not end with this machine."""

    def capabilities(self):
        return attrs.evolve(super().capabilities(), runs_on_this_machine=False)


def test_what_runs_elsewhere_goes_on_when_the_block_is_left_by_an_error(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError), run.Experiment("away") as experiment:  # noqa: PT012
        experiment.add(gate(tmp_path), Away(), name="runs")
        experiment.run()
        wait_for(lambda: states(experiment)["runs"] == "RUNNING")
        raise ZeroDivisionError
    assert "cancelling 0 jobs on this machine; 1 go on elsewhere" in capsys.readouterr().out
    assert states(experiment)["runs"] == "RUNNING"
    (tmp_path / "gate").touch()
    wait_for(lambda: states(experiment)["runs"] == "SUCCEEDED")


class Forgetful(run.Backend):
    """Finds what it does not know any more."""

    def find(self, jobs):
        return {job.key: "h" for job in jobs}

    def poll(self, handles):
        return dict.fromkeys(handles, run.UNKNOWN)

    render = submit = cancel = None


Forgetful.__abstractmethods__ = frozenset()


def test_a_look_in_a_folder_that_may_only_be_read_keeps_the_journals_word_of_what_is_unknown(tmp_path, monkeypatch):
    from nemorun_core.engine import settle

    with run.Experiment("unknown", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path), name="runs")
        experiment.run(detach=True)
    session = experiment._session
    orphan(experiment, "runs")

    def refused(self, take_over=False):
        raise run.StoreError("read-only")

    with monkeypatch.context() as patched:
        patched.setattr(settle.Lock, "acquire", refused)
        patched.setattr(run.LocalExecutor, "backend", lambda self: Forgetful())
        view = look(session.definition, session.folder, default_registry())
    assert view.graph.jobs["runs"].state is run.State.RUNNING
    (tmp_path / "gate").touch()
    wait_for(lambda: states(experiment)["runs"] == "SUCCEEDED")


def test_a_secret_is_revealed_before_an_experiment_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setenv("LATER", "word")
    with run.Experiment("secret", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path), name="first")
        executor = run.LocalExecutor(env_vars={"LATER": run.Secret.from_env("LATER")})
        experiment.add(sh('[ "$LATER" = word ]'), executor, name="second", dependencies=["first"])
        experiment.run(detach=True)
    orphan(experiment, "first")
    monkeypatch.delenv("LATER")
    again = run.Experiment.from_id(experiment.id)
    with pytest.raises(run.UsageError, match="LATER"):
        again.resume()
    monkeypatch.setenv("LATER", "word")
    (tmp_path / "gate").touch()
    again.resume()
    assert states(again) == {"first": "SUCCEEDED", "second": "SUCCEEDED"}


# In this process.


def test_a_direct_run_passes_on_what_streams_are(capsys):
    seen = []

    def look_at():
        import sys

        seen.append((sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.fileno() >= 0))

    with run.Experiment("streams", log_level="ERROR") as experiment:
        experiment.add(run.Partial(look_at))
        with capsys.disabled():
            experiment.run(direct=True)
    assert seen[0][1:] == ("utf-8", True) or seen[0][2]


def test_a_direct_run_that_is_driven_elsewhere_is_refused():
    from nemorun_core.engine.direct import run_directly

    with run.Experiment("driven", log_level="ERROR") as experiment:
        experiment.add(run.Partial(print))
        experiment.run(direct=True)
    session = experiment._session
    lock = Lock(session.folder.lock)
    assert lock.acquire()
    with pytest.raises(run.StoreError, match="is driven by another process"):
        run_directly(session.definition, session.folder, default_registry(), {})
    lock.release()


def group(until, members):
    """Return the graph's job of one group whose members were seen at their ends in one look."""
    graph = Graph(define(job("g", members=len(members), until=until)))
    graph.step(Submitted("g", 0, "h"), "t")
    graph.step(Observed("g", 0, 0, tuple(members)), "t")
    return graph.jobs["g"]


def ended_at(second, code=0, **facts):
    return attrs.evolve(ended(code), ended=f"2030-01-01T00:00:{second:02}.000Z", **facts)


def test_members_that_are_seen_at_once_decide_in_the_order_in_which_they_ended():
    good, bad = ended_at(11), ended_at(2, 7)
    assert group("first", [good, bad]).state is run.State.FAILED
    assert group("first", [bad, good]).state is run.State.FAILED
    assert group("first", [bad, ended_at(1)]).state is run.State.SUCCEEDED


def test_clocks_of_two_hosts_are_not_compared():
    good, bad = ended_at(11, host="one"), ended_at(2, 7, host="two")
    assert group("first", [good, bad]).state is run.State.SUCCEEDED


def test_the_exit_code_of_a_group_that_succeeded_is_of_those_that_did():
    made = group("first", [ended_at(1), ended_at(9, 143, signals=("TERM",))])
    assert (made.state, made.exit_code) == (run.State.SUCCEEDED, 0)


def test_a_request_does_not_hurry_what_waits_for_the_journal(tmp_path, monkeypatch):
    """On a full disk a cancel is carried out, and the release of an end that is not written is not."""
    real, released, full = JournalWriter.flush, [], []

    def flush(self, *, sync=False):
        if full:
            raise run.StoreError("cannot write: No space left on device.")
        real(self, sync=sync)

    monkeypatch.setattr(loop, "_DISK_SECONDS", 0.01)
    monkeypatch.setattr(JournalWriter, "flush", flush)
    monkeypatch.setattr(loop.Worker, "release", lambda self, handles: released.extend(handles))
    with run.Experiment("full", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path), name="ends")
        experiment.add(sh("echo up; sleep 60"), name="goes")
        experiment.run()
        engine = experiment._session.engine
        wait_for(lambda: all(job.state is run.State.RUNNING for job in engine.graph.jobs.values()))
        full.append(1)
        (tmp_path / "gate").touch()
        wait_for(lambda: engine.graph.jobs["ends"].state.is_final)
        experiment.cancel("goes")
        wait_for(lambda: engine.graph.jobs["goes"].state.is_final)
        assert released == []
        full.clear()
    assert states(experiment) == {"ends": "SUCCEEDED", "goes": "CANCELLED"}
    assert len(released) == 2


def test_a_resume_that_comes_second_is_told_who_drives(tmp_path):
    """Between its look and its lock another process took over."""
    with run.Experiment("raced", log_level="ERROR") as experiment:
        experiment.add(gate(tmp_path), name="runs")
        experiment.run(detach=True)
    session = experiment._session
    orphan(experiment, "runs")
    other = Lock(session.folder.lock)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(session), "check_startable", lambda self: other.acquire())
        with pytest.raises(run.UsageError, match="is driven by"):
            experiment.resume()
    other.release()
    (tmp_path / "gate").touch()
    experiment.wait()
    assert states(experiment) == {"runs": "SUCCEEDED"}
