"""Declared outputs are brought from where each member ran."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import pytest

import nemorun_core as run
from nemorun_core.engine.outputs import bring
from nemorun_core.store.layout import Folder
from tests.experiment.helpers import sh

MAKE = 'mkdir -p made/deep; echo "$NEMORUN_MEMBER" > made/deep/result.json; echo x > made/other.txt; echo y > .hidden'


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Run a job with outputs in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def one(*outputs, tasks=None):
        with run.Experiment("made", log_level="WARNING", id="made") as experiment:
            experiment.add(tasks or sh(MAKE), run.LocalExecutor(outputs=list(outputs)), name="job")
            experiment.run(check=True)
        return experiment

    return one


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_what_matches_any_pattern_comes_with_its_place(ran, tmp_path):
    ran("made/**/*.json", "made/other.*").sync("job", to=tmp_path / "here")
    assert files(tmp_path / "here") == ["job/made/deep/result.json", "job/made/other.txt"]


def test_a_folder_that_matches_comes_with_all_that_it_holds(ran, tmp_path):
    ran("made").sync(0, to=tmp_path / "here")
    assert files(tmp_path / "here") == ["job/made/deep/result.json", "job/made/other.txt"]


def test_by_default_they_come_to_a_folder_of_the_experiments_id(ran, tmp_path):
    ran(".hidden").sync("job")
    assert "job/.hidden" in files(tmp_path / "made")


def test_each_member_of_a_group_has_a_folder(ran, tmp_path, capsys):
    experiment = ran("made/deep/*.json", tasks=[sh(MAKE), sh(MAKE)])
    experiment.sync("job", to=tmp_path / "here")
    assert files(tmp_path / "here") == ["job/0/made/deep/result.json", "job/1/made/deep/result.json"]


def test_it_says_what_came_and_what_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with run.Experiment("said") as experiment:
        experiment.add(sh("echo 1 > one"), run.LocalExecutor(outputs=["one"]), name="some")
        experiment.add(sh("true"), run.LocalExecutor(outputs=["*.pt"]), name="none")
        experiment.run()
    capsys.readouterr()
    experiment.sync("some", to="here")
    experiment.sync("none", to="here")
    assert capsys.readouterr().out.splitlines() == [
        f"some: 1 files in {tmp_path}/here/some",
        "none: none of its declared outputs is there (member 0).",
    ]


def test_a_second_sync_replaces_what_the_first_brought(ran, tmp_path):
    experiment = ran("made/other.txt")
    experiment.sync("job", to=tmp_path / "here")
    (tmp_path / "made" / "other.txt").write_text("changed")
    experiment.sync("job", to=tmp_path / "here")
    assert (tmp_path / "here" / "job" / "made" / "other.txt").read_text() == "changed"


def test_a_job_that_declares_none_is_refused_with_what_to_write(ran):
    with pytest.raises(run.UsageError, match="declares no outputs") as caught:
        ran().sync("job")
    assert "outputs=[" in caught.value.hint


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../up", "a/../../b", "", "a\0b", 3])
def test_a_pattern_that_leaves_the_folder_is_refused_by_add(pattern):
    with run.Experiment("refused") as experiment, pytest.raises(run.UsageError, match="outputs"):
        experiment.add(sh("true"), run.LocalExecutor(outputs=[pattern]))


def test_from_the_command_line(ran, tmp_path, capsys):
    from nemorun_core._cli.main import main

    ran("made/other.txt")
    capsys.readouterr()
    assert main(["experiment", "sync", "made", "--to", str(tmp_path / "here"), "--json"]) == 0
    said = capsys.readouterr()
    assert '"files": ["made/other.txt"]' in " ".join(said.out.split()).replace("[ ", "[").replace(" ]", "]")
    assert said.err == f"job: 1 files in {tmp_path}/here/job\n"


def test_from_the_command_line_an_experiment_without_outputs_is_a_users_error(ran, capsys):
    from nemorun_core._cli.main import main

    ran()
    assert main(["experiment", "sync", "made"]) == 2
    assert "no job of made declares outputs" in capsys.readouterr().err


# Executors that do not share this machine's files.


class Far(run.Backend):
    """Knows one job, and has one file of it."""

    known = True

    def render(self, job):
        return []

    submit = poll = cancel = None

    def find(self, jobs):
        return {job.key: "h" for job in jobs} if self.known else {}

    def fetch(self, handle, member, patterns, to):
        Path(to, f"{patterns[0]}.{member}").write_text("far")


Far.__abstractmethods__ = frozenset()


@attrs.define(kw_only=True)
class FarExecutor(run.LocalExecutor):
    can: bool = True

    def capabilities(self):
        return attrs.evolve(super().capabilities(), shares_files=False, fetch=self.can)

    def backend(self):
        return Far()


def submission(tmp_path):
    member = run.Member(argv=("true",), environment={}, cwd="/nowhere")
    key = run.Key("0" * 16, "job", 0)
    executor = FarExecutor(outputs=["a"])
    folder = Folder(str(tmp_path))
    return run.Submission(key=key, members=(member,), executors=(executor,), folder=folder.path, support="")


def test_a_backend_fetches_what_is_not_shared(tmp_path):
    assert bring(submission(tmp_path), 0, str(tmp_path / "to")) == ["a.0"]
    shutil.rmtree(tmp_path / "to")
    assert bring(submission(tmp_path), 0, str(tmp_path / "to")) == ["a.0"]


def test_a_job_that_its_scheduler_does_not_know_any_more_is_no_empty_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(Far, "known", False)
    with pytest.raises(run.TransientError, match="does not know it any more"):
        bring(submission(tmp_path), 0, str(tmp_path / "to"))


def test_an_executor_that_can_bring_nothing_refuses_outputs():
    with run.Experiment("cannot") as experiment, pytest.raises(run.UsageError, match="cannot bring outputs"):
        experiment.add(sh("true"), FarExecutor(outputs=["a"], can=False, packager=run.Packager()))


def test_members_without_outputs_bring_none_and_broken_links_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with run.Experiment("some", log_level="WARNING") as experiment:
        executors = [run.LocalExecutor(), run.LocalExecutor(outputs=["made"])]
        experiment.add([sh("true"), sh("mkdir made; ln -s nowhere made/link; echo > made/file")], executors, name="job")
        experiment.run(check=True)
    experiment.sync("job", to="here")
    assert files(tmp_path / "here") == ["job/1/made/file"]
