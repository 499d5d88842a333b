"""What stands on disk: dry runs leave nothing, records are read back without running them, damage stays where it is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nemorun_core import (
    Config,
    Experiment,
    LocalExecutor,
    NemorunError,
    Partial,
    Script,
    StoreError,
    UsageError,
    after_any,
    after_failure,
)
from tests.experiment import targets
from tests.experiment.helpers import launch, log, python, sh, states, status, wait_for


def run(title: str = "recorded", **fields: object) -> Experiment:
    with Experiment(title, log_level="ERROR", **fields) as experiment:  # type: ignore[arg-type]
        experiment.add(sh("echo hello"), name="job")
        experiment.run()
    return experiment


def folder_of(experiment: Experiment) -> Path:
    return Path(str(status(experiment)["job"]["local_dir"])).parent


# Dry run.


def test_a_dry_run_leaves_nothing_and_starts_nothing(nemorun_home, tmp_path):
    done = launch(
        tmp_path,
        """
        with run.Experiment("dry") as experiment:
            experiment.add(run.Script(inline="touch started"))
            experiment.add(run.Partial(lambda: None))
            assert experiment.dryrun() is None
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "touch started" in done.stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["experiments", "launch.py", nemorun_home.name]


def test_a_dry_run_shows_every_job_member_and_variable(capsys):
    with Experiment("dry") as experiment:
        experiment.add([sh("echo 'two words'"), sh("echo second")], LocalExecutor(env_vars={"A": "b c"}), name="one")
        experiment.add(Partial(targets.add, 1, second=2), name="two")
        experiment.dryrun()
    out = capsys.readouterr().out
    assert "Task 0: one\n" in out
    assert "Task 1: two\n" in out
    assert "A='b c'\n" in out
    assert "NEMORUN_JOB=one\n" in out
    assert "--- member 1, rank 0\n" in out
    assert "echo second" in out
    assert "tests.experiment.targets:add" in out


def test_a_dry_run_shows_what_plugins_changed(capsys):
    with Experiment("dry") as experiment:
        experiment.add(sh("echo"), plugins=[targets.Tag("tagged")])
        experiment.dryrun()
    assert "tagged" in capsys.readouterr().out


def test_an_experiment_can_be_run_after_a_dry_run(capsys):
    with Experiment("dry", log_level="ERROR") as experiment:
        job = experiment.add(sh("echo hello"))
        experiment.dryrun()
        experiment.run()
    assert log(experiment, job) == "hello\n"


def test_what_is_shown_is_what_is_submitted(capsys):
    """The program's own command and environment, but for the port, which is chosen at the start."""
    with Experiment("dry", id="dry", log_level="ERROR") as experiment:
        job = experiment.add(sh("env | grep NEMORUN_ | sort", args=["a b"]))
        experiment.dryrun()
        experiment.run()
    shown = capsys.readouterr().out.splitlines()
    home = os.environ["NEMORUN_HOME"]
    expected = {line.replace("'", "") for line in shown if line.startswith("NEMORUN_") and "_PORT" not in line}
    found = {line for line in log(experiment, job).splitlines() if "_PORT" not in line}
    assert expected == found - {f"NEMORUN_HOME={home}"}


def test_a_loaded_experiment_shows_what_was_submitted(capsys):
    experiment = run()
    experiment.dryrun()
    own = capsys.readouterr().out
    Experiment.from_id(experiment.id).dryrun()
    assert capsys.readouterr().out == own
    assert "echo hello" in own


# Reset.


def test_reset_gives_a_fresh_run_of_what_was_given():
    with Experiment("again", log_level="ERROR") as experiment:
        first = experiment.add(sh('echo "$*" $TAG', args=["x"]), name="first", plugins=[targets.Tag("t")])
        bad = experiment.add(sh("false"), name="bad", dependencies=[first])
        experiment.add(sh("true"), name="clean up", dependencies=[after_any(bad)])
        experiment.add([sh("true"), sh("true")], name="group", dependencies=[after_failure(bad)])
        experiment.run()
    before_id, before = experiment.id, states(experiment)
    experiment.reset()
    with experiment:
        experiment.run()
    assert experiment.id != before_id
    assert states(experiment) == before
    assert log(experiment, "first") == f"x t t@{experiment.id}\n"  # tagged once, with the new id
    assert states(Experiment.from_id(before_id)) == before


def test_after_reset_tasks_may_be_edited_and_jobs_added():
    experiment = run().reset()
    with experiment:
        task = experiment.tasks[0]
        assert isinstance(task, Script)
        task.inline = "echo edited"
        experiment.add(sh("true"), name="more", dependencies=["job"])
        experiment.run()
    assert log(experiment, "job") == "edited\n"
    assert states(experiment)["more"] == "SUCCEEDED"


def test_an_experiment_from_another_process_can_be_reset_and_run(tmp_path):
    done = launch(
        tmp_path,
        """
        import functools
        from tests.experiment.targets import add

        with run.Experiment("elsewhere", id="elsewhere", log_level="ERROR") as experiment:
            experiment.add(run.Partial(add, 1, second=run.Config(int, 5)), name="sum")
            experiment.run(check=True)
        """,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    experiment = Experiment.from_id("elsewhere").reset()
    task = experiment.tasks[0]
    assert task == Partial(targets.add, 1, second=Config(int, 5))
    task.first = 40  # type: ignore[attr-defined]
    with experiment:
        experiment.run()
    assert log(experiment, "sum") == "40 + 5 = 45\n"


def test_reset_of_a_sequential_run_keeps_no_chain():
    with Experiment("again", log_level="ERROR") as experiment:
        for name in "ab":
            experiment.add(sh("exit 1"), name=name)
        experiment.run(sequential=True)
    with experiment.reset():
        experiment.run()
    assert states(experiment) == {"a": "FAILED", "b": "FAILED"}


def test_reset_keeps_until_and_tail_logs(capsysbinary):
    with Experiment("again", log_level="ERROR") as experiment:
        experiment.add([sh("echo first"), sh("exec sleep 300")], name="group", until="first", tail_logs=True)
        experiment.run()
    capsysbinary.readouterr()
    with experiment.reset():
        experiment.run(check=True)
    assert b"group/0 | first\n" in capsysbinary.readouterr().out


def test_reset_before_run_is_refused():
    with Experiment("again") as experiment:
        experiment.add(sh("true"))
        with pytest.raises(UsageError, match="was not run yet"):
            experiment.reset()


def test_reset_of_an_experiment_that_still_runs_is_refused():
    with Experiment("again", log_level="ERROR") as experiment:
        job = experiment.add(sh("exec sleep 60"))
        experiment.run()
        with pytest.raises(UsageError, match="still runs"):
            experiment.reset()
        experiment.cancel(job)


# Loading.


def test_loading_never_executes_code(tmp_path):
    """The module is imported once by the launcher, and never by whoever looks at its records."""
    marker = tmp_path / "imported"
    (tmp_path / "loud.py").write_text(
        f"open({str(marker)!r}, 'a').write('x')\nclass Loud:\n    pass\ndef speak(loud):\n    print('spoke')\n"
    )
    done = launch(
        tmp_path,
        """
        import loud
        with run.Experiment("loud", id="loud", log_level="ERROR") as experiment:
            experiment.add(run.Partial(loud.speak, run.Config(loud.Loud)), name="job")
            experiment.run(check=True)
        """,
    )
    assert done.returncode == 0, done.stderr
    marker.unlink()
    looked = python(
        """
        import nemorun_core as run
        experiment = run.Experiment.from_id("loud")
        experiment.status(); experiment.logs("job"); experiment.wait(); experiment.cancel("job")
        print(experiment.tasks, experiment.jobs)
        """,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert looked.stderr == ""
    assert "loud" in looked.stdout
    assert not marker.exists()


def test_a_record_whose_class_is_not_installed_can_be_listed_and_read(tmp_path):
    experiment = run()
    path = folder_of(experiment) / "experiment.json"
    text = path.read_text().replace('"kind":"local"', '"kind":"faraway"').replace("nemorun-local ", "nemorun-faraway ")
    path.write_text(text)
    again = Experiment.from_id(experiment.id)
    assert Experiment.catalog() == [experiment.id]
    assert states(again) == {"job": "SUCCEEDED"}
    again.logs("job")
    with pytest.raises(UsageError, match=r"needs 'faraway'(.|\n)*pip install nemorun-faraway"):
        again.reset()


# Damage.


def damage_newer(path: Path) -> None:
    (path / "experiment.json").write_text((path / "experiment.json").read_text().replace('"schema":1', '"schema":99'))


def damage_definition(path: Path) -> None:
    (path / "experiment.json").write_text("{}")


def damage_torn(path: Path) -> None:
    text = (path / "experiment.json").read_text()
    (path / "experiment.json").write_text(text[: len(text) // 2])


def damage_journal(path: Path) -> None:
    lines = (path / "journal.jsonl").read_text().splitlines()
    lines[1] = lines[1][:20]
    (path / "journal.jsonl").write_text("\n".join(lines) + "\n")


def damage_binary(path: Path) -> None:
    (path / "experiment.json").write_bytes(os.urandom(512))


def damage_folder(path: Path) -> None:
    (path / "experiment.json").unlink()
    (path / "experiment.json").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_newer, r"schema 99; this nemorun reads up to 1(.|\n)*upgrade"),
        (damage_definition, "experiment.json is no readable definition"),
        (damage_torn, "experiment.json is no readable definition"),
        (damage_binary, "experiment.json"),
        (damage_folder, "experiment.json"),
        (damage_journal, r"journal.jsonl, line 2"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_record_is_a_clear_error_and_other_experiments_are_unaffected(damage, message):
    damaged, sound = run("damaged"), run("sound")
    damage(folder_of(damaged))
    with pytest.raises(NemorunError, match=message) as caught:
        Experiment.from_id(damaged.id).status()
    assert isinstance(caught.value, StoreError)
    assert str(folder_of(damaged)) in str(caught.value)
    assert sound.id in Experiment.catalog()
    assert states(Experiment.from_id(sound.id)) == {"job": "SUCCEEDED"}
    assert run("damaged").wait()


def test_a_torn_last_line_of_the_journal_hides_nothing_before_it():
    experiment = run()
    with open(folder_of(experiment) / "journal.jsonl", "a") as journal:
        journal.write('{"event":"obser')
    assert states(Experiment.from_id(experiment.id)) == {"job": "SUCCEEDED"}


def test_a_folder_of_another_tool_is_passed_over_and_named(nemorun_home):
    run()
    other = nemorun_home / "experiments" / "theirs" / "theirs_1730761155"
    other.mkdir(parents=True)
    (other / "_CONFIG").write_text("something else")
    assert len(Experiment.catalog()) == 1
    with pytest.raises(UsageError, match=r"theirs_1730761155 is no experiment of nemorun"):
        Experiment.from_id("theirs_1730761155")


def test_a_file_in_the_home_disturbs_nothing(nemorun_home):
    experiment = run()
    (nemorun_home / "experiments" / "notes.txt").write_text("mine")
    (nemorun_home / "experiments" / "recorded" / "notes.txt").write_text("mine")
    assert Experiment.catalog() == [experiment.id]


@pytest.mark.parametrize("home", ["/proc/nemorun", "file/below", "dangling/below"])
def test_a_home_that_cannot_be_written_is_a_clear_error(home, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "file" / "nothing")
    base = home if home.startswith("/") else tmp_path / home
    with pytest.raises(StoreError, match=str(home).rpartition("/")[0]):
        run("nowhere", base_dir=base)


def removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_an_experiment_deleted_while_it_runs_is_a_clear_error_and_others_go_on(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Experiment("sound", log_level="ERROR") as sound:
        sound.add(sh("true"), name="job")
        with pytest.raises(StoreError) as caught, Experiment("deleted", log_level="ERROR") as experiment:  # noqa: PT012
            first = experiment.add(sh(f"read -r line <'{gate}'"), name="job")
            experiment.add(sh("true"), name="next", dependencies=[first])
            experiment.run()
            folder = folder_of(experiment)
            wait_for((folder / "job" / "0.0.0.out").exists)
            wait_for(lambda: removed(folder))
            gate.write_text("go on\n")
        sound.run()
    assert str(folder) in str(caught.value)
    assert states(sound) == {"job": "SUCCEEDED"}


def test_a_disk_that_is_full_at_the_start_is_a_clear_error(tmp_path, monkeypatch):
    """The launcher may write no byte: as on a full disk, what was claimed is there and nothing can be written."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # which would write its own data
    done = launch(
        tmp_path,
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with run.Experiment("full") as experiment:
            experiment.add(run.Script(inline="touch started"))
            experiment.id
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            try:
                experiment.run()
            except run.StoreError as error:
                print("refused:", error)
        """,
    )
    assert done.stderr == ""
    assert "refused: cannot write" in done.stdout
    assert not (tmp_path / "started").exists()


def test_the_definition_keeps_what_was_given_and_what_changed_it():
    with Experiment("kept", log_level="ERROR") as experiment:
        experiment.add(sh("true", args=["a"]), name="job", plugins=[targets.Tag("b")])
        experiment.run()
    job = json.loads((folder_of(experiment) / "experiment.json").read_text())["jobs"][0]
    assert job["given"]["tasks"][0]["fields"]["args"] == ["a"]
    assert job["tasks"][0]["fields"]["args"] == ["a", "b"]
    assert job["plugins"][0]["kind"] == "tests.experiment.targets:Tag"
    assert [change["by"] for change in job["changes"]] == ["Tag"]
    assert any("args" in line for line in job["changes"][0]["lines"])
