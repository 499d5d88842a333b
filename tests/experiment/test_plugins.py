"""Plugins given to `add`, hooks of installed packages, and what happens when either is broken.

Packages that bring hooks or classes are made as folders of modules beside a `.dist-info`, and seen by a process of
their own that has the folder on its path.
"""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from nemorun_core import Experiment, LocalExecutor, Plugin, UsageError
from tests.experiment import targets
from tests.experiment.helpers import launch, log, sh, status


@pytest.fixture
def experiment():
    with Experiment("plugins", log_level="ERROR") as entered:
        yield entered


# plugins=[...]


def test_a_plugin_learns_the_experiments_id_and_changes_task_and_executor_together(experiment):
    job = experiment.add(sh('echo "$1 $TAG"'), plugins=[targets.Tag("tagged")])
    experiment.run()
    experiment.wait()
    assert log(experiment, job) == f"tagged tagged@{experiment.id}\n"


def test_a_plugin_is_applied_to_each_member_of_a_group(experiment):
    job = experiment.add([sh("echo $1"), sh("echo again $1")], plugins=[targets.Tag("tagged")])
    experiment.run()
    experiment.wait()
    assert [log(experiment, job, member) for member in (0, 1)] == ["tagged\n", "again tagged\n"]


def test_members_that_share_an_executor_do_not_share_what_plugins_do_to_it(experiment):
    job = experiment.add([sh("echo $TAG")] * 2, LocalExecutor(), plugins=[targets.Tag("x")])
    experiment.run()
    experiment.wait()
    assert {log(experiment, job, member) for member in (0, 1)} == {f"x@{experiment.id}\n"}


def test_plugins_are_applied_in_order(experiment):
    job = experiment.add(sh('echo "$@"'), plugins=[targets.Tag("one"), targets.Tag("two")])
    experiment.run()
    experiment.wait()
    assert log(experiment, job) == "one two\n"


def test_what_is_given_stays_as_it_was(experiment):
    task, executor, plugin = sh("true"), LocalExecutor(), targets.Tag("tagged")
    experiment.add(task, executor, plugins=[plugin])
    assert (task, executor, plugin) == (sh("true"), LocalExecutor(), targets.Tag("tagged"))
    assert experiment.tasks == [sh("true")]


def test_one_plugin_needs_no_list(experiment):
    job = experiment.add(sh("echo $1"), plugins=targets.Tag("alone"))
    experiment.run()
    experiment.wait()
    assert log(experiment, job) == "alone\n"


def test_a_plugin_that_refuses_makes_add_fail_and_adds_nothing(experiment):
    with pytest.raises(UsageError, match=r"no task is good enough.\n  Give up."):
        experiment.add(sh("true"), plugins=[targets.Refuse()])
    assert experiment.jobs == []


@pytest.mark.parametrize("plugins", [[targets.Tag], ["env"], 3, [None]], ids=repr)
def test_what_is_no_plugin_is_refused(experiment, plugins):
    with pytest.raises(UsageError, match="plugins: expected"):
        experiment.add(sh("true"), plugins=plugins)


def test_a_plugin_without_setup_is_refused_by_name(experiment):
    class Empty(Plugin):
        pass

    with pytest.raises((NotImplementedError, UsageError)):
        experiment.add(sh("true"), plugins=[Empty()])
    assert experiment.jobs == []


def test_a_plugin_whose_fields_json_cannot_hold_is_refused_by_name(experiment):
    with pytest.raises(UsageError, match=r"Tag cannot be written down: .*set"):
        experiment.add(sh("true"), plugins=[targets.Tag({"a", object()})])  # type: ignore[arg-type]
    assert experiment.jobs == []


# Installed packages.


class Packages:
    """Fake distributions in a folder; a launcher that has it on its path sees them as installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "packages"
        self.path.mkdir()

    def add(self, name: str, entries: dict[str, dict[str, str]], **modules: str) -> None:
        """Install a distribution of version 1.2: entry-point group to name to value, and its modules."""
        info = self.path / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [
            line
            for group, points in entries.items()
            for line in (f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), "")
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, text in modules.items():
            (self.path / f"{module}.py").write_text(textwrap.dedent(text))

    def launch(self, text: str, *, warnings: str = "error", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a launcher that has these packages installed."""
        path = os.pathsep.join(filter(None, [str(self.path), os.environ.get("PYTHONPATH")]))
        return launch(self.folder, text, env={"PYTHONPATH": path, **env}, warnings=warnings)


@pytest.fixture
def packages(tmp_path):
    return Packages(tmp_path)


ADD = """
    with run.Experiment("hooked", id="hooked", log_level="ERROR") as experiment:
        try:
            experiment.add(run.Script(inline='echo "$HOOKS"'), name="job")
        except run.NemorunError as error:
            print(type(error).__name__, error)
            raise SystemExit
        experiment.run()
"""
HOOK = """
    from nemorun_core import hookimpl

    @hookimpl
    def nemorun_prepare_job(job):
        for executor in job.executors:
            executor.env_vars["HOOKS"] = executor.env_vars.get("HOOKS", "") + {word!r}
"""


def hook(word: str, decorator: str = "@hookimpl") -> str:
    return HOOK.replace("{word!r}", repr(word)).replace("@hookimpl", decorator)


def test_a_hook_is_applied_to_every_job_once_its_package_is_installed(packages):
    packages.add("acme-hooks", {"nemorun.hooks": {"acme": "acme_hooks"}}, acme_hooks=hook("acme"))
    done = packages.launch(ADD)
    assert (done.stdout, done.stderr) == ("", "")
    assert log(Experiment.from_id("hooked"), "job") == "acme\n"


def test_hooks_are_applied_in_name_order_and_tryfirst_and_trylast_are_kept(packages):
    for name, decorator in (
        ("b", "@hookimpl"),
        ("a", "@hookimpl"),
        ("z", "@hookimpl(tryfirst=True)"),
        ("0", "@hookimpl(trylast=True)"),
    ):
        packages.add(
            f"acme-{name}", {"nemorun.hooks": {name: f"acme_{name}"}}, **{f"acme_{name}": hook(name, decorator)}
        )
    assert packages.launch(ADD).stderr == ""
    assert log(Experiment.from_id("hooked"), "job") == "zab0\n"


def test_what_a_hook_changed_is_recorded_under_its_distribution(packages):
    packages.add("acme-hooks", {"nemorun.hooks": {"acme": "acme_hooks"}}, acme_hooks=hook("acme"))
    packages.launch(ADD)
    folder = Path(str(status(Experiment.from_id("hooked"))["job"]["local_dir"])).parent
    definition = json.loads((folder / "experiment.json").read_text())
    (change,) = definition["jobs"][0]["changes"]
    assert change["by"] == "acme-hooks 1.2"
    assert "HOOKS" in change["lines"][0]
    assert definition["provenance"]["plugins"]["acme-hooks"] == "1.2"


def test_a_hook_that_raises_makes_add_fail_and_names_its_distribution_and_the_switch(packages):
    packages.add(
        "acme-hooks",
        {"nemorun.hooks": {"acme": "acme_hooks"}},
        acme_hooks="""
            from nemorun_core import hookimpl

            @hookimpl
            def nemorun_prepare_job(job):
                raise LookupError("gone wrong")
        """,
    )
    done = packages.launch(ADD)
    assert done.stderr == ""
    assert done.stdout.startswith("Defect the hook nemorun_prepare_job of acme-hooks 1.2 failed for job 'job': ")
    assert "LookupError: gone wrong" in done.stdout
    assert "NEMORUN_PLUGINS_DISABLE=acme" in done.stdout


def test_a_hook_that_refuses_with_a_usage_error_is_taken_at_its_word(packages):
    packages.add(
        "acme-hooks",
        {"nemorun.hooks": {"acme": "acme_hooks"}},
        acme_hooks="""
            from nemorun_core import UsageError, hookimpl

            @hookimpl
            def nemorun_prepare_job(job):
                raise UsageError("not on Fridays.")
        """,
    )
    assert packages.launch(ADD).stdout == "UsageError not on Fridays.\n"


@pytest.mark.parametrize("value", ["acme", "other,acme", "*"])
def test_the_switch_turns_a_broken_hook_off(packages, value):
    packages.add("acme-hooks", {"nemorun.hooks": {"acme": "acme_hooks"}}, acme_hooks=hook("acme") + "\n    1 / 0\n")
    done = packages.launch(ADD, NEMORUN_PLUGINS_DISABLE=value)
    assert (done.stdout, done.stderr) == ("", "")
    assert log(Experiment.from_id("hooked"), "job") == "\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "from nemorun_core import hookimpl\n@hookimpl\ndef nemorun_no_such_hook(): pass",
            "nemorun_no_such_hook",
        ),
        (
            "from nemorun_core import hookimpl\n@hookimpl\ndef nemorun_prepare_job(no_such_argument): pass",
            "no_such_argument",
        ),
    ],
    ids=["missing", "syntax", "raises", "unknown hook", "unknown argument"],
)
def test_a_hook_module_that_cannot_be_used_gives_one_warning_and_is_left_out(packages, text, why):
    packages.add("acme-broken", {"nemorun.hooks": {"broken": "acme_broken"}}, acme_broken=text)
    packages.add("acme-hooks", {"nemorun.hooks": {"works": "acme_hooks"}}, acme_hooks=hook("works"))
    two = ADD.replace(
        "        experiment.run()", "        experiment.add(run.Script(inline='true'))\n        experiment.run()"
    )
    done = packages.launch(two, warnings="always")
    assert done.stdout == ""
    assert done.stderr.count("RuntimeWarning") == 1, done.stderr
    assert "acme-broken 1.2" in done.stderr
    assert why in done.stderr
    experiment = Experiment.from_id("hooked")
    assert log(experiment, "job") == "works\n"
    folder = Path(str(status(experiment)["job"]["local_dir"])).parent
    (recorded,) = json.loads((folder / "experiment.json").read_text())["provenance"]["broken_plugins"]
    assert recorded.startswith("acme-broken 1.2")


def test_hooks_are_imported_when_a_job_is_added_and_not_before(packages):
    packages.add(
        "acme-hooks", {"nemorun.hooks": {"acme": "acme_hooks"}}, acme_hooks="open('imported', 'a').write('x')\n"
    )
    packages.launch("run.Experiment.catalog(); run.LocalExecutor(); run.Experiment('x'); dir(run)")
    assert not (packages.folder / "imported").exists()
    packages.launch(ADD)
    assert (packages.folder / "imported").read_text() == "x"


def test_an_observer_sees_each_state_of_each_job(packages):
    packages.add(
        "acme-hooks",
        {"nemorun.hooks": {"acme": "acme_hooks"}},
        acme_hooks="""
            from nemorun_core import hookimpl

            @hookimpl
            def nemorun_event(event):
                with open("events", "a") as stream:
                    print(event.experiment_id, event.job, event.state, event.reason, event.attempt, file=stream)
        """,
    )
    assert packages.launch(ADD).stderr == ""
    lines = (packages.folder / "events").read_text().splitlines()
    assert lines[-1] == "hooked job SUCCEEDED None 0"
    assert lines == sorted(set(lines), key=lines.index)


def test_an_observer_that_raises_is_reported_once_and_hurts_nothing(packages):
    packages.add(
        "acme-hooks",
        {"nemorun.hooks": {"acme": "acme_hooks"}},
        acme_hooks="""
            from nemorun_core import hookimpl

            @hookimpl
            def nemorun_event(event):
                raise LookupError("gone wrong")
        """,
    )
    assert packages.launch(ADD).returncode == 0
    experiment = Experiment.from_id("hooked")
    assert status(experiment)["job"]["state"] == "SUCCEEDED"
    journal = (Path(str(status(experiment)["job"]["local_dir"])).parent / "journal.jsonl").read_text()
    assert journal.count("nemorun_event of acme-hooks 1.2: LookupError: gone wrong") == 1


def test_provenance_of_a_hook_is_kept_and_a_failing_one_leaves_a_warning(packages):
    for name, body in (("good", 'return {"commit": "abc", "title": experiment["title"]}'), ("bad", "1 / 0")):
        packages.add(
            f"acme-{name}",
            {"nemorun.hooks": {name: f"acme_{name}"}},
            **{
                f"acme_{name}": f"""
                from nemorun_core import hookimpl

                @hookimpl
                def nemorun_provenance(experiment):
                    {body}
                """
            },
        )
    assert packages.launch(ADD).stderr == ""
    folder = Path(str(status(Experiment.from_id("hooked"))["job"]["local_dir"])).parent
    provenance = json.loads((folder / "experiment.json").read_text())["provenance"]
    assert provenance["acme-good 1.2"] == {"commit": "abc", "title": "hooked"}
    assert "ZeroDivisionError" in provenance["acme-bad 1.2"]["warning"]


EXECUTOR = """
    import attrs
    from nemorun_local import LocalExecutor

    @attrs.define(kw_only=True)
    class AcmeExecutor(LocalExecutor):
        contract = CONTRACT
"""
USE = """
    try:
        with run.Experiment("used", id="used", log_level="ERROR") as experiment:
            experiment.add(run.Script(inline="echo hello"), WHICH, name="job")
            experiment.run()
    except run.NemorunError as error:
        print(type(error).__name__, error)
"""


def test_an_executor_of_anybodys_package_is_found_by_name_and_by_class(packages):
    packages.add(
        "acme-executor",
        {"nemorun.executors": {"acme": "acme_executor:AcmeExecutor"}},
        acme_executor=EXECUTOR.replace("CONTRACT", "1"),
    )
    for which in ('"acme"', "run.AcmeExecutor()"):
        done = packages.launch(USE.replace("WHICH", which).replace('id="used", ', ""))
        assert (done.stdout, done.stderr) == ("", "")
    done = packages.launch("print('AcmeExecutor' in dir(run), run.AcmeExecutor.__module__)")
    assert done.stdout == "True acme_executor\n"
    folders = [Experiment.from_id(one) for one in Experiment.catalog("used")]
    assert len(folders) == 2
    for found in folders:
        with pytest.raises(
            UsageError, match=r"needs 'acme' of acme-executor \(it had 1.2\)(.|\n)*pip install acme-exec"
        ):
            found.reset()


def test_one_name_from_two_distributions_is_refused_with_both_named(packages):
    for name in ("one", "two"):
        packages.add(
            f"acme-{name}",
            {"nemorun.executors": {"acme": f"acme_{name}:AcmeExecutor"}},
            **{f"acme_{name}": EXECUTOR.replace("CONTRACT", "1")},
        )
    done = packages.launch(USE.replace("WHICH", '"acme"'))
    assert done.stdout.startswith("UsageError nemorun.executors 'acme' is brought by acme-")
    assert "acme-one 1.2" in done.stdout
    assert "acme-two 1.2" in done.stdout
    assert "pip uninstall acme-" in done.stdout


def test_one_class_name_from_two_distributions_is_refused_with_both_named(packages):
    for name in ("one", "two"):
        packages.add(
            f"acme-{name}",
            {"nemorun.executors": {name: f"acme_{name}:AcmeExecutor"}},
            **{f"acme_{name}": EXECUTOR.replace("CONTRACT", "1")},
        )
    done = packages.launch(USE.replace("WHICH", "run.AcmeExecutor()"))
    assert done.stdout.startswith("UsageError AcmeExecutor is brought by acme-")
    assert "acme-one 1.2" in done.stdout
    assert "acme-two 1.2" in done.stdout


def test_names_of_the_core_win(packages):
    packages.add(
        "acme-executor",
        {"nemorun.executors": {"acme": "acme_executor:Script"}},
        acme_executor="class Script:\n    pass\n",
    )
    assert packages.launch("print(run.Script.__module__)").stdout == "nemorun_core.model.task\n"


def test_another_contract_is_refused_with_the_distribution_and_what_to_upgrade(packages):
    packages.add(
        "acme-executor",
        {"nemorun.executors": {"acme": "acme_executor:AcmeExecutor"}},
        acme_executor=EXECUTOR.replace("CONTRACT", "99"),
    )
    done = packages.launch(USE.replace("WHICH", '"acme"'))
    assert "AcmeExecutor of acme-executor 1.2 follows contract 99; this nemorun has 1." in done.stdout
    assert "pip install --upgrade nemorun-core acme-executor" in done.stdout


def test_an_executor_whose_module_cannot_be_imported_names_its_distribution(packages):
    packages.add(
        "acme-executor", {"nemorun.executors": {"acme": "acme_executor:AcmeExecutor"}}, acme_executor="import absent\n"
    )
    done = packages.launch(USE.replace("WHICH", '"acme"'))
    assert done.stdout.startswith("Defect acme_executor:AcmeExecutor of acme-executor 1.2 cannot be loaded: ")


def test_a_broken_package_does_not_break_what_does_not_use_it(packages):
    packages.add(
        "acme-executor", {"nemorun.executors": {"acme": "acme_executor:AcmeExecutor"}}, acme_executor="import absent\n"
    )
    done = packages.launch(USE.replace("WHICH", '"local"'))
    assert (done.stdout, done.stderr) == ("", "")


def test_what_is_no_executor_is_refused_with_its_name(packages):
    packages.add(
        "acme-executor", {"nemorun.executors": {"acme": "acme_executor:Acme"}}, acme_executor="class Acme: pass"
    )
    done = packages.launch(USE.replace("WHICH", '"acme"'))
    assert done.stdout.startswith("Defect 'acme' is no executor: Acme does not derive from run.Executor.")


MINE = """
    import attrs

    @attrs.define(kw_only=True)
    class Mine(run.LocalExecutor):
        word: str = "mine"

    with run.Experiment("main", id="main", log_level="ERROR") as experiment:
        experiment.add(run.Script(inline="echo hello"), Mine(), name="job")
        try:
            experiment.run(detach=DETACH)
        except run.UsageError as error:
            print(error)
"""


def test_a_class_of_the_launching_script_works_in_the_foreground(tmp_path):
    done = launch(tmp_path, MINE.replace("DETACH", "False"))
    assert (done.stdout, done.stderr) == ("", "")
    assert log(Experiment.from_id("main"), "job") == "hello\n"


def test_a_class_of_the_launching_script_is_refused_with_detach_by_name(tmp_path):
    done = launch(tmp_path, MINE.replace("DETACH", "True"))
    assert done.stderr == ""
    assert "Mine is defined in this script, and another process could not load it." in done.stdout
    assert Experiment.catalog() == []


def test_a_record_with_a_class_of_another_script_can_be_read(tmp_path):
    launch(tmp_path, MINE.replace("DETACH", "False"))
    experiment = Experiment.from_id("main")
    assert status(experiment)["job"]["executor"] == "Mine"
    with pytest.raises(UsageError, match=r"__main__:Mine cannot be loaded in this process"):
        experiment.reset()


def test_a_plugin_of_the_launching_script_is_kept_as_a_value(tmp_path):
    done = launch(
        tmp_path,
        """
        import attrs

        @attrs.define
        class Argument(run.Plugin):
            word: str

            def setup(self, task, executor):
                task.args.append(self.word)

        with run.Experiment("main", id="main", log_level="ERROR") as experiment:
            experiment.add(run.Script(inline="echo $1"), name="job", plugins=[Argument("mine")])
            experiment.run()
        with experiment.reset():
            experiment.run(check=True)
        """,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert log(Experiment.from_id("main"), "job") == "mine\n"
