"""`nemorun experiment list`, `status`, `logs`, `wait`, `cancel`: what is said, where it goes, and the exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import nemorun_core as nemorun

NEMORUN = [sys.executable, "-m", "nemorun_core._cli"]
JOB_KEYS = [
    "id", "state", "reason", "exit_code", "executor", "handle", "local_dir", "attempt", "started", "ended", "members",
]  # fmt: skip


def test_list_shows_the_newest_first_and_limit_keeps_the_newest(call, ran):
    ids = [ran("one", first="true").id, ran("two", first="true").id, ran("one", first="true").id]
    assert [line.split()[0] for line in call("experiment", "list").out.splitlines()] == ids[::-1]
    assert [line.split()[0] for line in call("experiment", "list", "--limit", 1).out.splitlines()] == ids[-1:]
    assert [line.split()[0] for line in call("experiment", "list", "one").out.splitlines()] == [ids[2], ids[0]]


def test_list_as_json_has_id_title_time_and_folder(call, ran):
    experiment = ran("a title", first="true")
    [entry] = json.loads(call("experiment", "list", "--json").out)
    assert list(entry) == ["id", "title", "created", "folder"]
    assert (entry["id"], entry["title"]) == (experiment.id, "a title")
    assert Path(entry["folder"], "experiment.json").is_file()


def test_an_empty_list_says_so_beside_the_data(call):
    said = call("experiment", "list")
    assert (said.code, said.out) == (0, "")
    assert "no experiment" in said.err
    assert call("experiment", "list", "--json").out == "[]\n"


def test_status_prints_what_the_guide_shows(call, ran):
    experiment = ran("hello", first="exit 3", second="true")
    said = call("experiment", "status", experiment.id)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Experiment Status for {experiment.id}\n\nTask 0: first\n- Status: FAILED\n")
    assert "- Reason: exit code 3\n" in said.out
    assert "- Status: SKIPPED\n" in said.out


def test_status_as_json_is_one_line_of_the_documented_shape(call, ran):
    experiment = ran("hello", first="exit 3", second="true")
    said = call("experiment", "status", experiment.id, "--json")
    assert said.out.count("\n") == 1
    shown = json.loads(said.out)
    assert list(shown) == ["id", "title", "state", "created", "driver", "jobs"]
    assert (shown["id"], shown["title"], shown["state"], shown["driver"]) == (experiment.id, "hello", "FAILED", None)
    assert [list(job) for job in shown["jobs"]] == [JOB_KEYS, JOB_KEYS]
    status = experiment.status(return_dict=True)
    assert {job.pop("id"): job for job in shown["jobs"]} == status


def test_status_of_several_experiments_gives_a_line_each(call, ran):
    ids = [ran("one", first="true").id, ran("two", first="true").id]
    assert [json.loads(line)["id"] for line in call("experiment", "status", *ids, "--json").out.splitlines()] == ids


def test_status_names_the_driver_while_one_lives(call, tmp_path):
    with nemorun.Experiment("long") as experiment:
        experiment.add(nemorun.Script(inline=f"while ! test -e {tmp_path}/go; do sleep 0.02; done"), name="first")
        experiment.run()
        shown = json.loads(call("experiment", "status", experiment.id, "--json").out)
        (tmp_path / "go").touch()
    assert shown["driver"]["pid"] == os.getpid()


@pytest.mark.parametrize("reference", ["{id}", "My Experiment", "My Exp"])
def test_an_experiment_is_found_by_id_title_and_unique_prefix(call, ran, reference):
    ran("other", first="true")
    experiment = ran("My Experiment", first="echo here")
    assert call("experiment", "logs", reference.format(id=experiment.id), "0").out == "here\n"


def test_a_title_means_its_newest_experiment(call, ran):
    ran("train", first="echo old")
    ran("train", first="echo new")
    ran("train-more", first="echo other")
    assert call("experiment", "logs", "train", "first").out == "new\n"


def test_a_title_comes_before_a_prefix(call, ran):
    ran("a", id="x1", first="echo title")
    ran("ab", first="echo prefix")
    assert call("experiment", "logs", "a", 0).out == "title\n"


def test_a_prefix_of_several_ids_is_refused_with_the_ids(call, ran):
    ids = [ran("one", first="true").id, ran("onto", first="true").id]
    said = call("experiment", "status", "on")
    assert (said.code, said.out) == (2, "")
    assert all(id in said.err for id in ids)


def test_base_dir_chooses_the_folder(call, ran, nemorun_home):
    experiment = ran("hello", first="echo moved")
    elsewhere = nemorun_home.with_name("elsewhere")
    nemorun_home.rename(elsewhere)
    assert call("experiment", "status", experiment.id).code == 2
    assert call("experiment", "logs", experiment.id, 0, "--base-dir", elsewhere).out == "moved\n"


def test_logs_without_a_job_are_prefixed_and_of_a_job_are_its_own_bytes(call, ran):
    experiment = ran("hello", first="printf 'a\\nb'", second="echo c")
    assert call("experiment", "logs", experiment.id).out == "first | a\nfirst | b\nsecond | c\n"
    assert call("experiment", "logs", experiment.id, "first").out == "a\nb"
    assert call("experiment", "logs", experiment.id, 1).out == "c\n"


def test_logs_choose_lines_by_tail_and_regex(call, ran):
    experiment = ran("hello", first="seq 20")
    assert call("experiment", "logs", experiment.id, 0, "-n", 2).out == "19\n20\n"
    assert call("experiment", "logs", experiment.id, 0, "--regex", "^.5").out == "15\n"
    assert call("experiment", "logs", experiment.id, 0, "--regex", "[").code == 2


def test_logs_choose_member_and_stream(call):
    with nemorun.Experiment("group") as experiment:
        executor = nemorun.LocalExecutor(separate_stderr=True)
        experiment.add([nemorun.Script(inline=f"echo {n}; echo e{n} >&2") for n in "ab"], executor, name="pair")
        experiment.run()
    assert call("experiment", "logs", experiment.id, 0, "--member", 1, "--stream", "err").out == "eb\n"
    assert call("experiment", "logs", experiment.id, 0, "--member", 2).code == 2


def test_logs_of_a_job_that_never_ran_say_why(call, ran):
    experiment = ran("hello", first="exit 1", second="echo never")
    said = call("experiment", "logs", experiment.id, "second")
    assert (said.code, said.out) == (0, "")
    assert "second was never started: SKIPPED" in said.err


def test_logs_follow_until_the_end_and_lose_nothing(shell, tmp_path):
    line = "for i in $(seq 2000); do echo line $i; done"
    (tmp_path / "job.sh").write_text(f"{line}; while ! test -e {tmp_path}/go; do sleep 0.02; done; {line}\n")
    names = [f"job{number}" for number in range(10)]
    (tmp_path / "launch.py").write_text(
        "import nemorun_core as run\n"
        "with run.Experiment('many') as experiment:\n"
        f"    for name in {names}:\n"
        "        experiment.add(run.Script('job.sh'), name=name)\n"
        "    experiment.run(detach=True)\n"
    )
    assert shell(f"{sys.executable} launch.py").code == 0
    said = shell("nemorun experiment logs many -f > log & touch go; wait $!; nemorun experiment wait many; cat log")
    assert said.code == 0
    for name in names:
        wanted = [f"{name} | line {number}" for number in [*range(1, 2001), *range(1, 2001)]]
        assert [text for text in said.out.splitlines() if text.startswith(f"{name} ")] == wanted


@pytest.mark.parametrize(
    ("text", "code"), [("true", 0), ("exit 7", 1), ("kill -9 $$", 1)], ids=["success", "exit code", "signal"]
)
def test_wait_tells_by_its_exit_code_whether_all_succeeded(call, ran, text, code):
    experiment = ran("hello", first=text)
    said = call("experiment", "wait", experiment.id)
    assert (said.code, said.out) == (code, "")


def test_wait_for_several_is_1_if_one_failed(call, ran):
    ids = [ran("one", first="false").id, ran("two", first="true").id]
    said = call("experiment", "wait", *ids)
    assert said.code == 1
    assert f"{ids[0]}: FAILED" in said.err
    assert f"{ids[1]}: SUCCEEDED" in said.err


def test_wait_gives_up_with_124_and_cancel_ends_what_runs(call, tmp_path):
    with nemorun.Experiment("long") as experiment:
        experiment.add(nemorun.Script(inline="sleep 60"), name="first")
        experiment.run()
        assert call("experiment", "wait", experiment.id, "--timeout", 0.1).code == 124
        said = call("experiment", "cancel", experiment.id, 0)
        assert (said.code, said.out) == (0, "")
        assert "Cancelling first.\n" in said.err
    assert call("experiment", "wait", experiment.id).code == 1
    assert "first has ended already: CANCELLED" in call("experiment", "cancel", experiment.id, "first").err


def test_cancel_wants_jobs_or_all(call, ran):
    experiment = ran("hello", first="true")
    for words in ((), ("first", "--all")):
        said = call("experiment", "cancel", experiment.id, *words)
        assert said.code == 2
        assert "--all" in said.err
    assert call("experiment", "cancel", experiment.id, "--all").code == 0


def test_work_that_nobody_drives_is_told_with_the_line_to_go_on(shell, call, tmp_path):
    (tmp_path / "launch.py").write_text(
        "import nemorun_core as run, os\n"
        "with run.Experiment('orphan') as experiment:\n"
        f"    experiment.add(run.Script(inline='while ! test -e {tmp_path}/go; do sleep 0.02; done'), name='first')\n"
        "    experiment.add(run.Script(inline='echo second'), name='second', dependencies=['first'])\n"
        "    experiment.run()\n"
        "    while experiment.status(return_dict=True)['first']['state'] != 'RUNNING': pass\n"
        "    os._exit(9)\n"
    )
    assert shell(f"{sys.executable} launch.py").code == 9
    said = call("experiment", "status", "orphan")
    assert "- Status: RUNNING" in said.out
    command = said.err.strip().rpartition(": ")[2]
    assert command.startswith("nemorun experiment resume orphan_")
    (tmp_path / "go").touch()
    resumed = shell(command)
    assert resumed.code == 0, resumed.err
    assert call("experiment", "logs", "orphan", "second").out == "second\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["experiment", "status"], "Missing argument"),
        (["experiment", "status", "nope"], "nemorun experiment list"),
        (["experiment", "status", "helo_1"], "Did you mean 'hello_1'?"),
        (["experiment", "logs", "hello_1", "frst"], "Did you mean 'first'?"),
        (["experiment", "logs", "hello_1", "7"], "Its jobs are 'first'"),
        (["experiment", "statsu", "hello_1"], "Did you mean `nemorun experiment status`?"),
        (["status", "hello_1"], "Did you mean `nemorun experiment status`?"),
        (["experiment", "logs", "hello_1", "--tial", "3"], "--tail"),
        (["experiment", "wait", "hello_1", "--timeout", "soon"], "'soon' is not a valid"),
        (["experiment", "delete"], "--older-than"),
        (["experiment", "delete", "--older-than", "month"], "30d"),
        (["experiment", "import", "no.tar"], "there is no file"),
        (["experiment", "resume", "hello_1"], "rerun"),
        (["experiment", "status", "../../etc"], "there is no experiment"),
        (["experiment", "status", ""], "there is no experiment"),
        (["plugins", "show", "nope"], "pip install"),
        (["completion", "tcsh"], "bash"),
    ],
    ids=" ".join,
)
def test_what_is_typed_wrong_is_answered_in_two_lines_with_exit_code_2(call, ran, words, answer):
    ran("hello", id="hello_1", first="true")
    said = call(*words)
    assert (said.code, said.out) == (2, "")
    assert answer in said.err
    assert said.err.startswith("Error: ")
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) == 2


@pytest.mark.parametrize("words", [["status", "Experiment_1"], ["logs", "My", "Experiment_1", "0"]], ids=" ".join)
def test_what_lacks_its_quotes_is_told_so(call, ran, words):
    ran("My Experiment", id="My Experiment_1", first="true")
    said = call("experiment", *words)
    assert said.code == 2
    assert "uote" in said.err


def test_a_group_without_a_command_shows_its_help(call):
    for words in ([], ["experiment"], ["plugins"]):
        said = call(*words)
        assert (said.code, said.err) == (0, "")
        assert said.out.startswith("Usage: nemorun")


def test_a_full_disk_under_the_output_is_exit_code_5_and_a_closed_one_is_nothing(shell, ran):
    ran("hello", first="true")
    full = shell("nemorun experiment list > /dev/full")
    assert full.code == 5
    assert "No space left" in full.err
    closed = shell("nemorun experiment list >&-")
    assert (closed.code, closed.err) == (0, "")


def test_records_that_cannot_be_read_are_exit_code_5(call, ran, nemorun_home):
    experiment = ran("hello", first="true")
    other = ran("other", first="true")
    [definition] = nemorun_home.glob(f"experiments/*/{experiment.id}/experiment.json")
    definition.write_text(definition.read_text()[:-10])
    said = call("experiment", "status", experiment.id)
    assert said.code == 5
    assert str(definition) in said.err
    assert call("experiment", "status", other.id).code == 0


def test_a_deleted_experiment_is_answered_like_one_that_never_was(call, ran, nemorun_home):
    experiment = ran("hello", first="true")
    shutil.rmtree(nemorun_home)
    assert call("experiment", "logs", experiment.id, 0).code == 2


def test_debug_shows_the_traceback_wherever_it_stands(call):
    assert "Traceback" in call("--debug", "experiment", "status", "nope").err
    assert "Traceback" in call("experiment", "status", "nope", "--debug").err


def test_a_closed_pipe_is_silent(shell, ran):
    experiment = ran("hello", first="seq 100000", second="true")
    said = shell(f"set -o pipefail; nemorun experiment logs {experiment.id} | head -1")
    assert (said.code, said.out, said.err) == (0, "first | 1\n", "")
    said = shell(f"nemorun experiment status {experiment.id} | true; echo ${{PIPESTATUS[0]}}")
    assert (said.out, said.err) == ("0\n", "")


def test_an_interrupt_is_exit_code_130(tmp_path):
    with nemorun.Experiment("long") as experiment:
        experiment.add(nemorun.Script(inline="echo ready; sleep 60"), name="first")
        experiment.run()
        words = [*NEMORUN, "experiment", "logs", experiment.id, "-f"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "first | ready\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        experiment.cancel("first")
    assert process.returncode == 130
    assert "Traceback" not in err


def test_the_farewell_of_a_run_works_when_pasted(shell, tmp_path):
    (tmp_path / "launch.py").write_text(
        "import nemorun_core as run\n"
        'with run.Experiment("it\'s mine") as experiment:\n'
        "    experiment.add(run.Script(inline='echo hello'), name='first')\n"
        "    experiment.run()\n"
    )
    said = shell(f"{sys.executable} launch.py")
    lines = [line for line in said.out.splitlines() if line.startswith("nemorun ")]
    assert [line.split()[2] for line in lines] == ["status", "logs", "cancel"]
    answers = [shell(line) for line in lines]
    assert [answer.code for answer in answers] == [0, 0, 0]
    assert answers[1].out == "hello\n"
