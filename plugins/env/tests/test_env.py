"""Variables for jobs: from `EnvVars`, and from the nearest `nemorun.toml`."""

from __future__ import annotations

from pathlib import Path

import pytest
from nemorun_env import EnvVars
from nemorun_env.hooks import nearest_variables

import nemorun_core as run


def printed(variables: str, **fields: object) -> list[str]:
    """Run a job in a new experiment, and return the values that it has of these variables, one a line."""
    script = run.Script(inline=f"for name in {variables}; do printenv $name || echo unset; done")
    with run.Experiment("env", log_level="ERROR") as experiment:
        job = experiment.add(script, **fields)  # type: ignore[arg-type]
        experiment.run(check=True)
    status = experiment.status(return_dict=True)
    assert status is not None
    return Path(str(status[job]["local_dir"]), "0.0.0.out").read_text().splitlines()


def table(folder: Path, text: str) -> None:
    (folder / "nemorun.toml").write_text(text)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


# EnvVars


def test_run_envvars_is_this_packages_class():
    assert run.EnvVars is EnvVars


def test_envvars_sets_variables_of_its_job():
    assert printed("A B", plugins=[EnvVars({"A": "one", "B": "two words"})]) == ["one", "two words"]


def test_envvars_wins_over_the_executor():
    executor = run.LocalExecutor(env_vars={"A": "executor", "B": "executor"})
    assert printed("A B", executor=executor, plugins=[EnvVars({"A": "plugin"})]) == ["plugin", "executor"]


def test_the_later_envvars_wins():
    assert printed("A", plugins=[EnvVars({"A": "first"}), EnvVars({"A": "second"})]) == ["second"]


def test_envvars_touches_other_jobs_of_the_same_executor_not():
    executor = run.LocalExecutor()
    with run.Experiment("env", executor, log_level="ERROR") as experiment:
        experiment.add(run.Script(inline='test "$A" = one'), plugins=[EnvVars({"A": "one"})])
        experiment.add(run.Script(inline='test -z "$A"'))
        experiment.run(check=True)
    assert executor == run.LocalExecutor()


def test_a_secret_stays_a_reference(monkeypatch, nemorun_home):
    monkeypatch.setenv("SOURCE", "canary")
    assert printed("A", plugins=[EnvVars({"A": run.Secret.from_env("SOURCE")})]) == ["canary"]
    definition = next(nemorun_home.glob("experiments/*/*/experiment.json")).read_text()
    assert "canary" not in definition
    assert "SOURCE" in definition


@pytest.mark.parametrize("values", [{"A": 3}, {"": "x"}, {"A=B": "x"}, {"A": "nul\0"}, {"A": None}], ids=repr)
def test_what_can_be_no_variable_is_refused_by_add(values):
    with run.Experiment("env") as experiment, pytest.raises(run.UsageError, match=r"env_vars|values"):
        experiment.add(run.Script(inline="true"), plugins=[EnvVars(values)])


@pytest.mark.parametrize("values", [["A=1"], "A=1", None, 3], ids=repr)
def test_what_is_no_mapping_is_refused_where_it_is_made(values):
    with pytest.raises(run.UsageError, match=r"EnvVars: expected a mapping(.|\n)*EnvVars\(\{"):
        EnvVars(values)


def test_envvars_is_kept_and_applied_again_by_reset():
    with run.Experiment("env", log_level="ERROR") as experiment:
        experiment.add(run.Script(inline='test "$A" = one'), plugins=[EnvVars({"A": "one"})])
        experiment.run(check=True)
    with run.Experiment.from_id(experiment.id).reset() as again:
        again.run(check=True)
    assert again.wait()


# nemorun.toml


def test_the_table_is_applied_to_every_job(folder):
    table(folder, '[env]\nA = "from file"\n')
    assert printed("A") == ["from file"]


def test_the_nearest_file_above_is_used(folder, monkeypatch):
    table(folder.parent, '[env]\nA = "far"\n')
    deep = folder / "one" / "two"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert printed("A") == ["far"]
    table(folder, '[env]\nB = "near"\n')
    assert printed("A B") == ["unset", "near"]


def test_a_jobs_own_variables_win_over_the_file(folder):
    table(folder, '[env]\nA = "file"\nB = "file"\nC = "file"\n')
    executor = run.LocalExecutor(env_vars={"A": "executor"})
    assert printed("A B C", executor=executor, plugins=[EnvVars({"B": "plugin"})]) == ["executor", "plugin", "file"]


def test_every_member_of_a_group_has_them(folder):
    table(folder, '[env]\nA = "file"\n')
    with run.Experiment("env", log_level="ERROR") as experiment:
        experiment.add([run.Script(inline='test "$A" = file')] * 2)
        experiment.run(check=True)


def test_without_a_file_nothing_is_changed(tmp_path):
    assert nearest_variables(tmp_path) == {}
    assert printed("A") == ["unset"]


def test_a_file_without_the_table_sets_nothing_and_hides_those_above(folder):
    table(folder.parent, '[env]\nA = "far"\n')
    table(folder, '[other]\nA = "x"\n')
    assert printed("A") == ["unset"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[env]\nA = 3\n", r"env\.A is 3, and must be text(.|\n)*Write A = \"3\""),
        ("env = 3\n", "'env' is no table"),
        ("[env\n", "cannot be read"),
        ("[env]\nA = ['x']\n", r"env\.A"),
    ],
    ids=["number", "no table", "no toml", "list"],
)
def test_a_file_that_does_not_fit_is_refused_with_its_path(folder, text, message):
    table(folder, text)
    with run.Experiment("env") as experiment, pytest.raises(run.UsageError, match=message) as caught:
        experiment.add(run.Script(inline="true"))
    assert str(folder / "nemorun.toml") in str(caught.value)
    assert experiment.jobs == []


def test_a_file_that_is_no_utf_8_is_refused(folder):
    (folder / "nemorun.toml").write_bytes(b'[env]\nA = "\xff"\n')
    with pytest.raises(run.UsageError, match="cannot be read"):
        nearest_variables(folder)


def test_the_switch_turns_the_file_off(folder, monkeypatch):
    """Read when the process starts, so a process of its own."""
    import subprocess
    import sys

    table(folder, "[env]\nA = 3\n")
    code = "import nemorun_core as run\nwith run.Experiment('x') as e: e.add(run.Script(inline='true'))"
    monkeypatch.setenv("NEMORUN_PLUGINS_DISABLE", "env")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    monkeypatch.delenv("NEMORUN_PLUGINS_DISABLE")
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 1


def test_what_the_file_changed_is_recorded_under_this_distribution(folder, nemorun_home):
    table(folder, '[env]\nA = "file"\n')
    printed("A")
    definition = next(nemorun_home.glob("experiments/*/*/experiment.json")).read_text()
    assert '"by":"nemorun-env ' in definition
