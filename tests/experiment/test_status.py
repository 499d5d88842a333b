"""`status`, `logs`, `cancel` and `wait`, from the process that runs the experiment and from any other."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from nemorun_core import Experiment, LocalExecutor, UsageError
from tests.experiment.helpers import launch, python, sh, start, states, status, wait_for

KEYS = ["state", "reason", "exit_code", "executor", "handle", "local_dir", "attempt", "started", "ended"]


def run(*jobs: object, title: str = "asked") -> Experiment:
    with Experiment(title, log_level="ERROR") as experiment:
        for number, job in enumerate(jobs):
            experiment.add(job, name=f"job-{number}")  # type: ignore[arg-type]
        experiment.run()
    return experiment


# Status.


def test_the_status_dict_has_the_documented_keys_in_order():
    experiment = run([sh("true"), sh("true")], sh("exit 3"))
    for job in status(experiment).values():
        assert list(job) == [*KEYS, "members"]
        for member in job["members"]:  # type: ignore[attr-defined]
            assert sorted(member) == sorted(KEYS)


def test_the_status_dict_holds_plain_values_only():
    experiment = run(sh("true"), sh("exit 3"))
    found = status(experiment)
    assert json.loads(json.dumps(found)) == found
    assert type(found["job-0"]["state"]) is str


def test_the_status_of_a_job_that_succeeded(nemorun_home):
    before = datetime.now(timezone.utc)
    experiment = run(sh("true"))
    job = status(experiment)["job-0"]
    assert (job["state"], job["reason"], job["exit_code"], job["attempt"]) == ("SUCCEEDED", None, 0, 0)
    assert job["executor"] == "LocalExecutor"
    assert str(job["handle"]).startswith("job-0-")
    assert job["local_dir"] == str(nemorun_home / "experiments" / "asked" / experiment.id / "job-0")
    assert Path(str(job["local_dir"])).is_dir()
    for name in ("started", "ended"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(job[name]))
    started, ended = (datetime.fromisoformat(str(job[name])[:-1] + "+00:00") for name in ("started", "ended"))
    assert before.replace(microsecond=0) <= started <= ended <= datetime.now(timezone.utc)


def test_times_and_handle_of_a_job_that_never_started_are_none():
    with Experiment("asked", log_level="ERROR") as experiment:
        bad = experiment.add(sh("false"), name="bad")
        experiment.add(sh("true"), name="after", dependencies=[bad])
        experiment.run()
    job = status(experiment)["after"]
    assert (job["handle"], job["started"], job["exit_code"]) == (None, None, None)
    assert len(job["members"]) == 1  # type: ignore[arg-type]


def test_each_member_has_its_own_end():
    with Experiment("asked", log_level="ERROR") as experiment:
        experiment.add([sh("exit 0"), sh("kill -TERM $$")], name="job-0", until="all")
        experiment.run()
    members = status(experiment)["job-0"]["members"]
    assert members[1]["reason"] == "signal 15 (SIGTERM)"  # type: ignore[index]
    assert members[1]["exit_code"] == 143  # type: ignore[index]


def test_status_prints_what_the_guide_shows(capsys):
    experiment = run(sh("true"), sh("true"))
    assert experiment.status() is None
    out = capsys.readouterr().out
    expected = [f"Experiment Status for {experiment.id}"]
    for number, (name, job) in enumerate(status(experiment).items()):
        expected += [
            "",
            f"Task {number}: {name}",
            "- Status: SUCCEEDED",
            "- Executor: LocalExecutor",
            f"- Job id: {job['handle']}",
            f"- Local Directory: {job['local_dir']}",
        ]
    assert out.strip().splitlines() == expected


def test_status_prints_the_reason_of_a_failure(capsys):
    run(sh("exit 3")).status()
    assert "- Status: FAILED\n- Reason: exit code 3\n" in capsys.readouterr().out


def test_status_before_run_is_refused():
    with Experiment("asked") as experiment:
        experiment.add(sh("true"))
        with pytest.raises(UsageError, match=r"'asked' was not run yet(.|\n)*exp\.run\(\)"):
            experiment.status()


def test_another_process_sees_the_same():
    experiment = run(sh("exit 3"), [sh("true"), sh("true")])
    done = python(
        f"""
        import json
        import nemorun_core as run
        print(json.dumps(run.Experiment.from_id({experiment.id!r}).status(return_dict=True)))
        """
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == status(experiment)


def test_another_process_sees_a_job_that_runs(tmp_path):
    """The launcher's job waits for a file that the second process makes once it has seen the job run."""
    with start(
        tmp_path,
        """
        with run.Experiment("other", id="other", log_level="ERROR") as experiment:
            experiment.add(run.Script(inline="until [ -e seen ]; do sleep 0.01; done"), name="job")
            experiment.run(check=True)
        """,
    ) as launcher:
        wait_for(lambda: "other" in Experiment.catalog())
        wait_for(lambda: states(Experiment.from_id("other")) == {"job": "RUNNING"})
        (tmp_path / "seen").touch()
        assert Experiment.from_id("other").wait(20)
        assert launcher.wait(20) == 0, launcher.communicate()


# Logs.


def test_logs_prints_the_log_and_returns_none(capsysbinary):
    experiment = run(sh("echo one; printf two"))
    assert experiment.logs("job-0") is None  # type: ignore[func-returns-value]
    assert capsysbinary.readouterr().out == b"one\ntwo"


def test_logs_takes_the_number_of_a_job(capsys):
    experiment = run(sh("echo zero"), sh("echo one"))
    experiment.logs(1)
    experiment.logs("0")
    assert capsys.readouterr().out == "one\nzero\n"


def test_a_log_is_byte_exact(capsysbinary):
    experiment = run(sh(r"printf '\000\377\r\n\302'"))
    experiment.logs("job-0")
    assert capsysbinary.readouterr().out == b"\x00\xff\r\n\xc2"


def test_the_logs_of_a_group_are_prefixed_by_member(capsys):
    experiment = run([sh("echo a; echo b"), sh("echo c")])
    experiment.logs("job-0")
    assert sorted(capsys.readouterr().out.splitlines()) == ["job-0/0 | a", "job-0/0 | b", "job-0/1 | c"]


def test_the_log_of_one_member_has_no_prefix(capsys):
    experiment = run([sh("echo a"), sh("echo b")])
    experiment.logs("job-0", member=1)
    assert capsys.readouterr().out == "b\n"


def test_a_member_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no member 2"):
        run([sh("echo a"), sh("echo b")]).logs("job-0", member=2)


def test_streams_can_be_chosen(capsys):
    with Experiment("asked", LocalExecutor(separate_stderr=True, ntasks_per_node=2), log_level="ERROR") as experiment:
        experiment.add(sh("echo out $NEMORUN_RANK; echo err $NEMORUN_RANK >&2"), name="job-0")
        experiment.run()
    for stream in ("out", "err", "out.1", "err.1"):
        experiment.logs("job-0", stream=stream)
    found = re.findall(r"(out|err) (\d)\n", capsys.readouterr().out)
    assert found == [("out", "0"), ("err", "0"), ("out", "1"), ("err", "1")]


def test_tail_prints_the_last_lines(capsys):
    run(sh("seq 1000")).logs("job-0", tail=2)
    assert capsys.readouterr().out == "999\n1000\n"


def test_tail_0_prints_nothing(capsys):
    run(sh("seq 10")).logs("job-0", tail=0)
    assert capsys.readouterr().out == ""


def test_regex_prints_the_lines_in_which_it_is_found(capsys):
    run(sh("seq 100")).logs("job-0", regex="^9[0-2]$")
    assert capsys.readouterr().out == "90\n91\n92\n"


def test_a_regex_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r"regex='\('"):
        run(sh("true")).logs("job-0", regex="(")


def test_follow_goes_on_until_the_job_has_ended(tmp_path, capsys):
    with Experiment("asked", log_level="ERROR") as experiment:
        experiment.add(sh(f"echo begun; until [ -e '{tmp_path}/go' ]; do sleep 0.01; done; echo ended"), name="job-0")
        experiment.run()
        path = Path(str(status(experiment)["job-0"]["local_dir"])) / "0.0.0.out"
        wait_for(lambda: path.exists() and path.read_text())
        (tmp_path / "go").touch()
        experiment.logs("job-0", follow=True)
        assert states(experiment)["job-0"] == "SUCCEEDED"
    assert capsys.readouterr().out == "begun\nended\n"


@pytest.mark.parametrize("method", ["logs", "cancel"])
@pytest.mark.parametrize("job", ["jbo-0", "", 7, -1, "-1", "1.5"])
def test_an_unknown_job_is_refused_and_the_jobs_named(method, job):
    experiment = run(sh("true"))
    with pytest.raises(UsageError, match=r"there is no job (.|\n)*'job-0'"):
        getattr(experiment, method)(job)


# Cancel.


def test_cancel_ends_a_running_job():
    with Experiment("asked", log_level="ERROR") as experiment:
        job = experiment.add(sh("exec sleep 60"), name="job-0")
        after = experiment.add(sh("true"), name="after", dependencies=[job])
        experiment.run()
        wait_for(lambda: states(experiment)[job] == "RUNNING")
        assert experiment.cancel(job) is None  # type: ignore[func-returns-value]
    found = status(experiment)
    assert (found[job]["state"], found[job]["reason"]) == ("CANCELLED", "by user")
    assert (found[after]["state"], found[after]["reason"]) == ("SKIPPED", "dependency: 'job-0' CANCELLED: by user")


def test_cancel_ends_a_job_that_has_not_started():
    with Experiment("asked", log_level="ERROR") as experiment:
        first = experiment.add(sh("exec sleep 60"), name="first")
        second = experiment.add(sh("true"), name="second", dependencies=[first])
        experiment.run()
        experiment.cancel(second)
        wait_for(lambda: states(experiment)[second] == "CANCELLED")
        experiment.cancel(first)
    assert states(experiment) == {"first": "CANCELLED", "second": "CANCELLED"}


def test_cancel_leaves_a_job_alone_that_has_ended():
    experiment = run(sh("true"))
    experiment.cancel("job-0")
    assert states(experiment) == {"job-0": "SUCCEEDED"}
    assert states(Experiment.from_id(experiment.id)) == {"job-0": "SUCCEEDED"}


def test_cancel_from_another_process_ends_the_job(tmp_path):
    with start(
        tmp_path,
        """
        with run.Experiment("other", id="other", log_level="ERROR") as experiment:
            experiment.add(run.Script(inline="exec sleep 60"), name="job")
            experiment.run()
        print(experiment.status(return_dict=True)["job"]["reason"])
        """,
    ) as launcher:
        wait_for(lambda: "other" in Experiment.catalog())
        wait_for(lambda: states(Experiment.from_id("other")) == {"job": "RUNNING"})
        Experiment.from_id("other").cancel("job")
        assert Experiment.from_id("other").wait(20) is False
        assert launcher.communicate(timeout=20) == ("by user\n", "")


# Wait.


def test_wait_says_whether_all_succeeded():
    assert run(sh("true")).wait() is True
    assert run(sh("true"), sh("false")).wait() is False


def test_wait_gives_up_after_its_timeout(tmp_path):
    with Experiment("asked", log_level="ERROR") as experiment:
        job = experiment.add(sh("exec sleep 60"))
        experiment.run()
        assert experiment.wait(timeout_seconds=0.05) is False
        assert states(experiment)[job] in ("PENDING", "RUNNING", "UNSUBMITTED")
        experiment.cancel(job)


def test_wait_works_in_another_process():
    experiment = run(sh("true"))
    done = python(f"import nemorun_core as run; print(run.Experiment.from_id({experiment.id!r}).wait())")
    assert (done.stdout, done.stderr) == ("True\n", "")


# The farewell.


FAREWELL = """
with run.Experiment("farewell {title}") as experiment:
    experiment.add(run.Script(inline="echo hello"), name="say it")
    experiment.run()
"""


@pytest.fixture(params=["plain", 'it\\\'s "quoted"'])
def farewell(request, tmp_path):
    done = launch(tmp_path, FAREWELL.format(title=request.param.replace('"', '\\"')))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_farewell_shows_what_the_guide_shows(farewell):
    lines = farewell.strip().splitlines()
    assert lines[0] == "# The experiment was run with the following tasks: ['say it']"
    patterns = [
        r"# You can inspect and reconstruct this experiment at a later point in time using:",
        r"experiment = run\.Experiment\.from_id\(.+\)",
        r"experiment\.status\(\) +# Gets the overall status",
        r"experiment\.logs\('say it'\) +# Gets the log for the provided task",
        r"experiment\.cancel\('say it'\) +# Cancels the provided task if still running",
        r"# You can inspect this experiment at a later point in time using the CLI as well:",
        r"nemorun experiment status .+",
        r"nemorun experiment logs .+ 0",
        r"nemorun experiment cancel .+ 0",
    ]
    for pattern in patterns:
        assert [line for line in lines if re.fullmatch(pattern, line)], pattern


def test_the_farewells_python_lines_work_when_pasted(farewell, tmp_path):
    block = farewell.partition("\n# You can inspect this experiment at a later point in time using the CLI")[0]
    done = python(block)
    assert done.stderr == ""
    assert "- Status: SUCCEEDED" in done.stdout
    assert done.stdout.endswith("hello\n")
