"""What people see: prefixed lines with `tail_logs`, a live table on a terminal, plain lines when piped, or nothing."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from nemorun_core import Experiment, LocalExecutor, UsageError
from tests.experiment.helpers import launch, sh, start, wait_for

LAUNCHER = """
    with run.Experiment("shown", log_level="LEVEL") as experiment:
        first = experiment.add(run.Script(inline="echo one; echo two"), name="first", tail_logs=OWN)
        experiment.add(run.Script(inline="echo three; exit 3"), name="second", dependencies=[first])
        experiment.run(tail_logs=ALL)
"""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def launcher(*, own: bool = False, everything: bool = False, level: str = "INFO") -> str:
    return LAUNCHER.replace("OWN", str(own)).replace("ALL", str(everything)).replace("LEVEL", level)


def on_a_terminal(folder: Path, text: str, **environment: str) -> str:
    """Run a launcher on a terminal of 100 columns and return all that it wrote."""
    script = folder / "launch.py"
    script.write_text("import nemorun_core as run\n" + textwrap.dedent(text))
    terminal, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"} | environment,
    )
    os.close(theirs)
    written = b""
    try:
        while select.select([terminal], [], [], 30)[0]:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            written += data
    finally:
        os.close(terminal)
        process.kill()
        process.wait()
    return written.decode().replace("\r\n", "\n")


def test_a_job_added_with_tail_logs_is_shown_and_no_other(tmp_path):
    done = launch(tmp_path, launcher(own=True, level="ERROR"))
    assert (done.stdout, done.stderr) == ("first | one\nfirst | two\n", "")


def test_run_with_tail_logs_shows_every_job(tmp_path):
    done = launch(tmp_path, launcher(everything=True, level="ERROR"))
    assert (done.stdout, done.stderr) == ("first | one\nfirst | two\nsecond | three\n", "")


def test_without_tail_logs_no_output_is_shown(tmp_path):
    done = launch(tmp_path, launcher(level="ERROR"))
    assert (done.stdout, done.stderr) == ("", "")


def test_piped_state_changes_are_plain_lines_with_the_reason(tmp_path):
    done = launch(tmp_path, launcher())
    assert "[nemorun] first: SUCCEEDED\n" in done.stderr
    assert "[nemorun] second: FAILED (exit code 3)\n" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_members_and_ranks_have_prefixes_of_their_own(tmp_path, capsysbinary):
    with Experiment("shown", LocalExecutor(ntasks_per_node=2), log_level="ERROR") as experiment:
        experiment.add([sh("echo $NEMORUN_RANK")] * 2, name="job", tail_logs=True)
        experiment.run()
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert sorted(lines) == ["job/0 | 0", "job/0.1 | 1", "job/1 | 0", "job/1.1 | 1"]


def test_a_last_line_without_newline_is_shown_whole(capsysbinary):
    with Experiment("shown", log_level="ERROR") as experiment:
        experiment.add(sh("printf 'a\\nb'"), name="job", tail_logs=True)
        experiment.run()
    assert capsysbinary.readouterr().out == b"job | a\njob | b\n"


def test_output_is_shown_while_the_job_runs(tmp_path):
    text = """
        with run.Experiment("shown", log_level="ERROR") as experiment:
            experiment.add(run.Script(inline="echo begun; until [ -e go ]; do sleep 0.01; done"), name="job")
            experiment.run(tail_logs=True)
    """
    with start(tmp_path, text) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "job | begun\n"
        (tmp_path / "go").touch()
        assert process.wait(20) == 0


def test_every_line_of_many_is_shown(tmp_path):
    text = """
        with run.Experiment("shown", log_level="ERROR") as experiment:
            experiment.add([run.Script(inline="seq 100000")] * 2, name="job", tail_logs=True)
            experiment.run()
    """
    lines = launch(tmp_path, text).stdout.splitlines()
    for member in (0, 1):
        prefix = f"job/{member} | "
        found = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
        assert found == [str(number) for number in range(1, 100001)]


def test_on_a_terminal_the_prefixes_of_different_jobs_have_different_colours(tmp_path):
    written = on_a_terminal(tmp_path, launcher(everything=True, level="ERROR"))
    colours = re.findall(r"\x1b\[([\d;]+)m(first|second) \| \x1b\[0m(\w+)\n", written)
    assert [(job, text) for _, job, text in colours] == [("first", "one"), ("first", "two"), ("second", "three")]
    assert colours[0][0] == colours[1][0] != colours[2][0]


def test_no_color_takes_the_colours_from_the_prefixes(tmp_path):
    written = on_a_terminal(tmp_path, launcher(everything=True, level="ERROR"), NO_COLOR="1")
    assert written == "first | one\nfirst | two\nsecond | three\n"


def test_on_a_terminal_a_table_shows_state_elapsed_and_reason(tmp_path):
    written = on_a_terminal(tmp_path, launcher())
    plain = ESCAPE.sub("", written)
    assert re.search(r"Job +State +(Elapsed|Time) +Reason", plain)
    assert re.search(r"first +SUCCEEDED +0:00:0\d", plain)
    assert re.search(r"second +FAILED +0:00:0\d +exit code 3", plain)
    assert "[nemorun]" not in plain


def test_the_table_has_colours_and_no_color_takes_them_away(tmp_path):
    colour = re.compile(r"\x1b\[[\d;]*3[0-7][\d;]*m")
    assert colour.search(on_a_terminal(tmp_path, launcher()))
    assert not colour.search(on_a_terminal(tmp_path, launcher(), NO_COLOR="1"))


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    written = on_a_terminal(tmp_path, launcher(), TERM="dumb")
    assert "[nemorun] second: FAILED (exit code 3)" in written
    assert "\x1b" not in written


def test_a_reader_that_goes_away_ends_nothing(tmp_path, nemorun_home):
    """As `launch.py | head -1`."""
    text = """
        with run.Experiment("shown", id="shown", log_level="ERROR") as experiment:
            experiment.add(run.Script(inline="echo begun; until [ -e go ]; do sleep 0.01; done; seq 100000"), name="a")
            experiment.run(tail_logs=True)
    """
    with start(tmp_path, text) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        (tmp_path / "go").touch()
        process.wait(20)
    assert Experiment.from_id("shown").wait(20)


@pytest.mark.parametrize("level", ["WARNING", "WARN", "ERROR", "critical"])
def test_a_higher_level_leaves_our_own_words_out(tmp_path, level):
    done = launch(tmp_path, launcher(own=True, level=level))
    assert (done.stdout, done.stderr) == ("first | one\nfirst | two\n", "")


@pytest.mark.parametrize("level", ["LOUD", "", None, 3], ids=repr)
def test_an_unknown_level_is_refused(level):
    with pytest.raises(UsageError, match="log_level="):
        Experiment("shown", log_level=level)


def test_many_jobs_do_not_print_a_line_each(tmp_path):
    text = """
        with run.Experiment("many") as experiment:
            for number in range(30):
                experiment.add(run.Script(inline="exit $(( $1 == 7 ))", args=[number]), name=f"job {number}")
            experiment.run()
    """
    done = launch(tmp_path, text)
    assert done.stderr.splitlines() == ["[nemorun] job 7: FAILED (exit code 1)", "[nemorun] 30 jobs have ended"]


def test_nothing_of_ours_runs_when_the_block_has_been_left():
    with Experiment("shown", log_level="ERROR") as experiment:
        experiment.add(sh("echo hello"), tail_logs=True)
        experiment.run()

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("nemorun")]

    wait_for(lambda: not threads(), "our threads have ended")


def test_a_search_passes_on_whole_lines_with_carriage_returns_in_them(tmp_path, capfdbinary):
    with Experiment("progress", log_level="ERROR") as experiment:
        job = experiment.add([sh(r"printf 'a 10%%\r20%%\r\nb 1\r\nc 2'")] * 2, name="pair")
        experiment.run()
    capfdbinary.readouterr()
    experiment.logs(job, regex="a|c")
    said = capfdbinary.readouterr().out
    for member in (b"pair/0 | ", b"pair/1 | "):
        assert [line for line in said.split(b"\n") if line.startswith(member)] == [
            member + b"a 10%\r20%\r",
            member + b"c 2",
        ]
