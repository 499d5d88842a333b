"""What a program gets, and how its end is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import attrs
import pytest
from nemorun_local import LocalExecutor

from nemorun_core import Rejected, Secret, State, UsageError

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def variables(text):
    return dict(line.partition("=")[::2] for line in text.split("\n"))


# Ends.


@pytest.mark.parametrize(
    ("script", "state", "code", "reason"),
    [
        ("exit 0", State.SUCCEEDED, 0, None),
        ("exit 3", State.FAILED, 3, "exit code 3"),
        ("exit 125", State.FAILED, 125, "exit code 125"),
        ("kill -KILL $$", State.FAILED, 137, "signal 9 (SIGKILL)"),
        ("kill -SEGV $$", State.FAILED, 139, "signal 11 (SIGSEGV)"),
        ("kill -TERM $$", State.FAILED, 143, "signal 15 (SIGTERM)"),
        ("exec no-such-command", State.FAILED, 127, "bad command: not found (exit code 127)"),
        ("exec /", State.FAILED, 126, "bad command: cannot be executed (exit code 126)"),
    ],
)
def test_an_end_is_told_with_its_exit_code_and_reason(jobs, script, state, code, reason):
    member = jobs.run(script)
    assert (member.state, member.exit_code, str(member.reason or "") or None) == (state, code, reason)


def test_a_command_that_is_not_there_is_named_in_the_log(jobs):
    member = jobs.run(["no-such-command"], name="a")
    assert member.exit_code == 127
    assert "no-such-command" in jobs.log("a")


def test_a_missing_working_directory_fails_the_job_and_is_named_in_the_log(jobs, tmp_path):
    member = jobs.run("exit 0", name="a", cwd=tmp_path / "gone")
    assert (member.state, member.exit_code) == (State.FAILED, 126)
    assert "gone" in jobs.log("a")


def test_start_and_end_are_times_in_order(jobs):
    member = jobs.run("exit 0")
    assert TIME.fullmatch(member.started)
    assert TIME.fullmatch(member.ended)
    assert member.started <= member.ended


def test_a_running_job_is_running(jobs):
    handle = jobs.start("echo up; sleep 60", name="a")
    jobs.shows("a", "up")
    [member] = jobs.poll(handle).members
    assert (member.state, member.exit_code, member.ended) == (State.RUNNING, None, None)


def test_a_final_observation_stays_as_it_is(jobs):
    handle = jobs.start("exit 4")
    seen = jobs.end(handle)
    assert jobs.poll(handle) == seen


def test_an_unknown_handle_is_answered_as_unknown(jobs):
    assert jobs.poll("nobody").members == ()


# What arrives.


def test_a_program_inherits_the_environment_with_its_own_variables_on_top(jobs, monkeypatch):
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("CHANGED", "before")
    jobs.run("env", name="a", environment={"CHANGED": "after é\n$HOME", "EMPTY": ""})
    seen = variables(jobs.log("a"))
    assert (seen["INHERITED"], seen["CHANGED"], seen["EMPTY"]) == ("yes", "after é", "")
    assert "$HOME" in jobs.log("a").split("\n")


def test_variables_with_the_names_of_shell_variables_arrive(jobs):
    names = ["base", "code", "host", "boot", "now", "program", "suffix", "cwd", "noted", "name", "PS4"]
    jobs.run(["env"], name="a", environment=dict.fromkeys(names, "mine"))
    seen = variables(jobs.log("a"))
    assert {name: seen.get(name) for name in names} == dict.fromkeys(names, "mine")


def test_a_program_has_no_input_no_terminal_and_no_files_of_the_driver(jobs, tmp_path):
    with open(tmp_path / "mine", "w") as stream:
        os.set_inheritable(stream.fileno(), True)
        jobs.run("cat; ls -l /proc/self/fd; tty", name="a")
    listing = jobs.log("a")
    assert "mine" not in listing
    assert "not a tty" in listing
    assert len(re.findall(r" -> ", listing)) == 4  # the standard three, and the listing's own


def test_a_program_is_in_a_session_of_its_own(jobs):
    jobs.run("ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat", name="a")
    assert int(jobs.log("a")) != os.getsid(0)


def test_signals_that_the_driver_ignores_are_not_ignored_by_the_program(jobs):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert jobs.run("kill -TERM $$; exit 0").exit_code == 143
    finally:
        signal.signal(signal.SIGTERM, before)


def test_standard_error_is_apart_where_that_was_asked(jobs):
    jobs.run("echo out; echo err >&2", name="a", executor=LocalExecutor(separate_stderr=True))
    assert (jobs.log("a"), jobs.log("a", stream="err")) == ("out\n", "err\n")


def test_standard_error_joins_the_log_otherwise(jobs):
    jobs.run("echo out; echo err >&2", name="a")
    assert jobs.log("a") == "out\nerr\n"


# Ranks and members.


def ranks_of(jobs, script, **options):
    executor = LocalExecutor(nodes=2, ntasks_per_node=3, **options)
    seen = jobs.run(script, name="a", executor=executor)
    return seen, [jobs.log("a", stream=f"out.{rank}" if rank else "out") for rank in range(6)]


def test_each_rank_of_a_member_knows_its_place(jobs):
    script = "echo $NEMORUN_RANK $NEMORUN_LOCAL_RANK $NEMORUN_NODE_RANK $NEMORUN_NNODES $NEMORUN_HEAD_HOST"
    _, logs = ranks_of(jobs, script)
    assert logs == [f"{rank} {rank % 3} {rank // 3} 2 127.0.0.1\n" for rank in range(6)]


def test_all_ranks_and_members_are_given_one_free_port_to_meet(jobs):
    jobs.end(jobs.start("echo $NEMORUN_HEAD_PORT", "echo $NEMORUN_HEAD_PORT", name="g"))
    ports = {jobs.log("g", member) for member in range(2)}
    assert len(ports) == 1
    assert 1024 <= int(ports.pop()) < 65536


def test_members_know_where_each_of_them_is(jobs):
    jobs.end(jobs.start("echo $NEMORUN_MEMBER_0_HOST $NEMORUN_MEMBER_1_HOST", "exit 0", name="g"))
    assert jobs.log("g") == "127.0.0.1 127.0.0.1\n"


def test_the_exit_code_of_a_member_is_the_highest_of_its_ranks(jobs):
    seen, _ = ranks_of(jobs, "exit $NEMORUN_RANK")
    assert (seen.state, seen.exit_code) == (State.FAILED, 5)


def test_a_member_runs_until_its_last_rank_has_ended(jobs, tmp_path):
    script = f"echo up; [ $NEMORUN_RANK = 0 ] || while ! [ -e {tmp_path}/stop ]; do sleep 0.01; done"
    handle = jobs.start(script, name="a", executor=LocalExecutor(ntasks_per_node=2))
    jobs.shows("a", "up")
    jobs.backend.wait([handle], 5.0)
    assert jobs.poll(handle).members[0].state is State.RUNNING
    (tmp_path / "stop").touch()
    assert jobs.end(handle).members[0].state is State.SUCCEEDED


def test_each_member_of_a_group_has_its_own_end_and_log(jobs):
    seen = jobs.end(jobs.start("echo 0; exit 0", "echo 1; exit 7", "echo 2; kill -KILL $$", name="g"))
    assert [member.exit_code for member in seen.members] == [0, 7, 137]
    assert [jobs.log("g", member) for member in range(3)] == ["0\n", "1\n", "2\n"]


# What is refused.


@pytest.mark.parametrize("argument", ["a\0b", "\ud800"], ids=["NUL", "lone surrogate"])
def test_an_argument_that_no_program_can_receive_is_rejected(jobs, argument):
    answer = jobs.answer(jobs.make(("echo", argument)))
    assert isinstance(answer, Rejected)


def test_no_member_of_a_group_runs_where_the_arguments_of_another_cannot_be_received(jobs):
    """E1: what can be known before the first start is looked at before."""
    answer = jobs.answer(jobs.make("touch ran", ("echo", "a\0b")))
    assert isinstance(answer, Rejected)
    assert not os.path.exists(jobs.folder / "ran")


def test_a_group_of_which_a_part_cannot_start_leaves_neither_a_process_nor_a_record(jobs, monkeypatch):
    monkeypatch.delenv("ABSENT", raising=False)
    job = jobs.make("echo up; sleep 60", "echo up; sleep 60", name="g")
    broken = attrs.evolve(job.members[1], environment={"TOKEN": Secret.from_env("ABSENT")})
    answer = jobs.answer(attrs.evolve(job, members=(job.members[0], broken)))
    assert isinstance(answer, Rejected)
    assert "ABSENT" in str(answer.reason)
    assert subprocess.run(["pgrep", "-f", str(jobs.folder / "g")], capture_output=True, check=False).stdout == b""
    assert not [name for name in os.listdir(jobs.folder / "g") if ".start" in name or ".outcome" in name]


@pytest.mark.parametrize(
    "fields",
    [
        {"nodes": 0},
        {"nodes": True},
        {"ntasks_per_node": -1},
        {"max_parallel": 0},
        {"max_parallel": 1.5},
        {"timeout_seconds": -1},
        {"grace_seconds": float("inf")},
        {"env_vars": {"A B": "x"}},
        {"env_vars": {"NEMORUN_RANK": "3"}},
        {"env_vars": {"A": 3}},
        {"env_vars": {"A": "x\0y"}},
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_before_anything_is_created(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        LocalExecutor(**fields).check()


def test_a_rendered_job_is_the_command_that_is_run(jobs, tmp_path):
    """E13: the document, given to a shell, does what the submission would."""
    job = jobs.make(["printf", "%s|", "a b", "$HOME", "", "it's"], name="a", environment={"V": "x y"})
    [document] = jobs.backend.render(job)
    assert not os.path.exists(job.folder)
    os.mkdir(job.folder)
    subprocess.run(["sh", "-c", f"env {document.text.replace(chr(10), ' ')}"], check=True)
    assert jobs.log("a") == "a b|$HOME||it's|"


def test_a_secret_is_rendered_as_its_reference(jobs, monkeypatch):
    monkeypatch.setenv("SOURCE", "canary-in-render")
    text = jobs.backend.render(jobs.make("exit 0", environment={"TOKEN": Secret.from_env("SOURCE")}))[0].text
    assert "canary" not in text
    assert "SOURCE" in text


def test_the_heavy_half_is_loaded_when_a_backend_is_opened():
    script = "import nemorun_local, sys; sys.exit('nemorun_local.backend' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
