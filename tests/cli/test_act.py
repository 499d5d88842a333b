"""`nemorun experiment resume`, `rerun`, `show`, `diff`, `delete`, `export` and `import`."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import pytest

import nemorun_core as nemorun


def ids(call) -> list[str]:
    return [entry["id"] for entry in json.loads(call("experiment", "list", "--json").out)][::-1]


def states(call, reference) -> dict[str, str]:
    shown = json.loads(call("experiment", "status", reference, "--json").out)
    return {job["id"]: job["state"] for job in shown["jobs"]}


def test_rerun_makes_a_new_experiment_of_all_jobs(call, ran):
    old = ran("hello", first="echo 1", second="echo 2").id
    said = call("experiment", "rerun", old)
    assert said.code == 0
    assert ids(call)[0] == old
    assert states(call, ids(call)[1]) == {"first": "SUCCEEDED", "second": "SUCCEEDED"}
    assert states(call, old) == {"first": "SUCCEEDED", "second": "SUCCEEDED"}


def test_rerun_failed_takes_what_did_not_succeed_and_keeps_its_order(call, ran, tmp_path):
    old = ran("hello", first="true", second=f"test -e {tmp_path}/mended", third="true").id
    assert states(call, old) == {"first": "SUCCEEDED", "second": "FAILED", "third": "SKIPPED"}
    assert call("experiment", "rerun", old, "--failed").code == 1
    (tmp_path / "mended").touch()
    assert call("experiment", "rerun", old, "--failed").code == 0
    assert states(call, ids(call)[-1]) == {"second": "SUCCEEDED", "third": "SUCCEEDED"}
    said = call("experiment", "rerun", ids(call)[-1], "--failed")
    assert (said.code, len(ids(call))) == (0, 3)
    assert "nothing to run again" in said.err


def test_rerun_of_named_jobs_runs_those_alone_and_detached_prints_the_id(call, ran):
    old = ran("hello", first="true", second="true").id
    said = call("experiment", "rerun", old, 1, "--detach")
    assert said.code == 0
    new = said.out.strip()
    assert call("experiment", "wait", new).code == 0
    assert states(call, new) == {"second": "SUCCEEDED"}
    assert new != old


def test_resume_refuses_what_a_living_driver_drives(call, tmp_path):
    with nemorun.Experiment("long") as experiment:
        experiment.add(nemorun.Script(inline=f"while ! test -e {tmp_path}/go; do sleep 0.02; done"), name="first")
        experiment.run()
        said = call("experiment", "resume", experiment.id)
        (tmp_path / "go").touch()
    assert said.code == 2
    assert "is driven by process" in said.err
    assert "--take-over" in said.err


def test_resume_detached_prints_the_id_and_goes_on(shell, call, tmp_path):
    (tmp_path / "launch.py").write_text(
        "import nemorun_core as run, os\n"
        "with run.Experiment('orphan', id='orphan_1') as experiment:\n"
        "    experiment.add(run.Script(inline='true'), name='first')\n"
        "    experiment.add(run.Script(inline='echo second'), name='second', dependencies=['first'])\n"
        "    from nemorun_core.engine.loop import Engine\n"
        "    Engine.start = lambda self: os._exit(9)\n"
        "    experiment.run()\n"
    )
    assert shell("python launch.py").code == 9
    waited = call("experiment", "wait", "orphan_1")
    assert waited.code == 5
    assert "nemorun experiment resume orphan_1" in waited.err
    said = call("experiment", "resume", "orphan_1", "--detach")
    assert (said.code, said.out) == (0, "orphan_1\n")
    assert call("experiment", "wait", "orphan_1").code == 0
    assert call("experiment", "logs", "orphan_1", "second").out == "second\n"


def test_resume_takes_over_from_a_driver_that_lives_and_the_job_runs_once(call, shell, tmp_path):
    (tmp_path / "job.sh").write_text(f"echo started; while ! test -e {tmp_path}/go; do sleep 0.02; done\n")
    id = shell("nemorun run job.sh --name long --detach").out.strip()
    before = json.loads(call("experiment", "status", id, "--json").out)["driver"]
    assert call("experiment", "resume", id, "--detach", "--take-over").out == f"{id}\n"
    after = json.loads(call("experiment", "status", id, "--json").out)["driver"]
    (tmp_path / "go").touch()
    assert call("experiment", "wait", id).code == 0
    assert before["pid"] != after["pid"]
    assert call("experiment", "logs", id, 0).out == "started\n"


def test_show_tells_tasks_executors_dependencies_changes_and_provenance(call):
    with nemorun.Experiment("hello") as experiment:
        first = experiment.add(nemorun.Script(inline="true"), nemorun.LocalExecutor(ntasks_per_node=2), name="first")
        plugins = [nemorun.EnvVars({"SEED": "1"})]
        experiment.add(nemorun.Script(inline="true"), name="second", plugins=plugins, dependencies=[first])
        experiment.run()
    text = call("experiment", "show", experiment.id).out
    assert "Script(inline='true')" in text
    assert "ntasks_per_node=2" in text
    assert "Job 1: second, after first (success)" in text
    assert re.search(r"changed by EnvVars:\n.*SEED.*'1'", text)
    assert "python: " in text
    shown = json.loads(call("experiment", "show", experiment.id, "--json").out)
    assert list(shown) == ["id", "title", "created", "cwd", "sequential", "direct", "provenance", "jobs", "bundles"]
    keys = ["id", "group", "until", "dependencies", "tasks", "executors", "plugins", "bundles", "changes"]
    assert [list(job) for job in shown["jobs"]] == [keys, keys]
    assert shown["jobs"][1]["dependencies"] == [{"job": "first", "condition": "success"}]
    assert [list(change) for change in shown["jobs"][1]["changes"]] == [["by", "lines"]]


def test_show_reads_a_record_whose_plugin_is_not_installed(call, ran, nemorun_home):
    experiment = ran("hello", first="true")
    [definition] = nemorun_home.glob(f"experiments/*/{experiment.id}/experiment.json")
    data = json.loads(definition.read_text())
    data["executors"][0].update(kind="moon", distribution="nemorun-moon 1.0")
    definition.write_text(json.dumps(data, separators=(",", ":")))
    assert "executor: moon" in call("experiment", "show", experiment.id).out
    assert call("experiment", "status", experiment.id).code == 0


def test_diff_names_each_place_and_both_values(call, ran):
    one, two = ran("one", first="true", gone="true"), ran("two", first="false")
    lines = call("experiment", "diff", one.id, two.id).out.splitlines()
    assert "job first task $.inline: 'true' -> 'false'" in lines
    assert "job gone $: present -> <absent>" in lines
    shown = json.loads(call("experiment", "diff", one.id, two.id, "--json").out)
    assert list(shown) == ["a", "b", "differences"]
    assert {"where": "job gone", "path": "$", "a": "present", "b": None} in shown["differences"]
    same = call("experiment", "diff", one.id, one.id)
    assert (same.code, same.out) == (0, "")
    assert "are the same" in same.err


def test_delete_removes_the_records_and_leaves_others_alone(call, ran, nemorun_home):
    one, two = ran("one", first="true"), ran("two", first="true")
    said = call("experiment", "delete", one.id)
    assert (said.code, said.out) == (0, f"{one.id}\n")
    assert ids(call) == [two.id]
    assert [path.name for path in (nemorun_home / "experiments").iterdir()] == ["two"]


def test_delete_refuses_what_runs_and_then_deletes_nothing(call, ran, tmp_path):
    done = ran("done", first="true")
    with nemorun.Experiment("long") as experiment:
        experiment.add(nemorun.Script(inline=f"while ! test -e {tmp_path}/go; do sleep 0.02; done"), name="first")
        experiment.run()
        said = call("experiment", "delete", done.id, experiment.id)
        exported = call("experiment", "export", experiment.id, "-o", tmp_path / "x.tar")
        old = call("experiment", "delete", "--older-than", "0s")
        (tmp_path / "go").touch()
    assert (said.code, said.out) == (2, "")
    assert "still runs" in said.err
    assert exported.code == 2
    assert not (tmp_path / "x.tar").exists()
    assert old.out == f"{done.id}\n"
    assert f"Kept: {experiment.id} still runs" in old.err


def test_delete_by_age_takes_the_old_ones_only(call, ran, nemorun_home):
    old, new = ran("old", first="true"), ran("new", first="true")
    [definition] = nemorun_home.glob(f"experiments/*/{old.id}/experiment.json")
    definition.write_text(re.sub(r'"created":"20\d\d', '"created":"2001', definition.read_text(), count=1))
    assert call("experiment", "delete", "--older-than", "30d").out == f"{old.id}\n"
    assert ids(call) == [new.id]


def test_an_export_can_be_read_back_elsewhere_with_its_logs(call, ran, tmp_path):
    experiment = ran("hello", first="echo kept; exit 3")
    tar = tmp_path / "hello.tar"
    assert call("experiment", "export", experiment.id, "-o", tar).out == f"{tar}\n"
    home = tmp_path / "elsewhere"
    assert call("experiment", "import", tar, "--base-dir", home).out == f"{experiment.id}\n"
    assert call("experiment", "logs", experiment.id, 0, "--base-dir", home).out == "kept\n"
    assert call("experiment", "wait", "hello", "--base-dir", home).code == 1
    assert [path.name for path in home.iterdir()] == ["experiments"]


def test_an_export_goes_through_a_pipe(shell, ran, tmp_path):
    experiment = ran("hello", first="echo kept")
    said = shell(f"nemorun experiment export {experiment.id} -o - | nemorun experiment import - --base-dir other")
    assert (said.code, said.out) == (0, f"{experiment.id}\n")


def test_an_import_onto_itself_is_refused(call, ran, tmp_path):
    experiment = ran("hello", first="true")
    call("experiment", "export", experiment.id, "-o", tmp_path / "x.tar")
    said = call("experiment", "import", tmp_path / "x.tar")
    assert said.code == 2
    assert "is here already" in said.err


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    "entries",
    [
        [tarfile.TarInfo("../evil")],
        [tarfile.TarInfo("/evil")],
        [tarfile.TarInfo("x_1/../../evil")],
        [link("x_1/evil", tarfile.SYMTYPE)],
        [link("x_1/evil", tarfile.LNKTYPE)],
        [link("x_1/evil", tarfile.FIFOTYPE)],
        [tarfile.TarInfo("x_1/a"), tarfile.TarInfo("y_1/b")],
        [tarfile.TarInfo("x_1/a"), tarfile.TarInfo("x_1/a")],
        [],
    ],
    ids=["up", "absolute", "inside up", "symlink", "hard link", "pipe", "two folders", "twice", "empty"],
)
def test_an_import_believes_only_plain_files_below_one_folder(call, tmp_path, nemorun_home, entries):
    tar = tmp_path / "evil.tar"
    with tarfile.open(tar, "w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO())
    before = sorted(tmp_path.iterdir())
    said = call("experiment", "import", tar)
    assert (said.code, said.out) == (2, "")
    assert "Nothing was imported" in said.err
    assert sorted(path for path in tmp_path.iterdir() if path != nemorun_home) == before
    assert not [path for path in nemorun_home.rglob("*") if path.is_file()]


def test_what_is_no_tar_is_refused(call, tmp_path):
    (tmp_path / "x.tar").write_text("hello" * 1000)
    assert call("experiment", "import", tmp_path / "x.tar").code == 2


def test_an_import_without_a_definition_leaves_nothing(call, tmp_path, nemorun_home):
    folder = tmp_path / "x_1"
    folder.mkdir()
    (folder / "experiment.json").write_text("{}")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(folder, "x_1")
    assert call("experiment", "import", tmp_path / "x.tar").code == 5
    assert not list(Path(nemorun_home).rglob("x_1"))
