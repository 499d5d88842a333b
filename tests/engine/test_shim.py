"""The shim, under each shell that a machine may have: one claim, one program, one outcome."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nemorun_core.contracts.host import boot_id, hostname
from nemorun_core.contracts.witness import base_path, pad_outcome, rank_suffix, read_rank, shim_argv
from nemorun_core.model.records import OUTCOME_PADDING
from tests.engine.disk import small_disk

SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash"]}
SHIM = str(files("nemorun_core.engine").joinpath("shim.sh"))
SIGNALS = ["TERM", "HUP", "USR1", "USR2"]
PRINTF = shutil.which("printf") or "/usr/bin/printf"
CLAIM_TAKEN = 125


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.002)


class Shim:
    """Starts shims in a folder, with one shell."""

    def __init__(self, shell: list[str], folder: Path) -> None:
        self.shell = shell
        self.folder = folder
        self.base = base_path(str(folder), 0, 0, 0)

    def argv(self, program, *, suffix="", cwd=None, base=None, **options):
        cwd = str(self.folder) if cwd is None else str(cwd)
        return [*self.shell, *shim_argv(SHIM, base or self.base, suffix, cwd, program, **options)]

    def popen(self, program, *, suffix="", pad=True, env=None, **options):
        if pad:
            pad_outcome(self.base, suffix)
        return subprocess.Popen(
            self.argv(program, suffix=suffix, **options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    def run(self, program, **options):
        with self.popen(program, **options) as process:
            process.communicate(timeout=20)
            return process.returncode

    def sh(self, script, **options):
        return self.run(["sh", "-c", script], **options)

    def witness(self, suffix=""):
        return read_rank(self.base, suffix)

    def outcome(self, suffix=""):
        outcome = self.witness(suffix).outcome
        assert outcome is not None
        return outcome

    def ended(self, process, code, *, signals):
        """Whether the end was told rightly. After a signal bash loses a status now and then, and then says so: the code
        is unknown, never wrong."""
        status, outcome = process.wait(20), self.outcome()
        expected = [(code, code), (CLAIM_TAKEN, None)] if self.shell == ["bash"] else [(code, code)]
        assert (status, outcome.code) in expected
        return outcome.signals == signals

    def log(self, stream="out", suffix=""):
        return Path(f"{self.base}.{stream}{suffix}").read_bytes()


@pytest.fixture(params=SHELLS)
def shell(request):
    command = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return command


@pytest.fixture
def shim(shell, tmp_path):
    folder = tmp_path / "a job's $folder"
    folder.mkdir()
    return Shim(shell, folder)


# The claim.


def test_exactly_one_of_twenty_racing_shims_runs_the_program(shim):
    pad_outcome(shim.base, "")
    reading, writing = os.pipe()
    argv = shim.argv(["sh", "-c", "echo ran >>runs; exit 4"])
    # All wait for the end of one pipe, so that they start at the same instant.
    racers = [
        subprocess.Popen(["sh", "-c", 'read -r go; exec "$@" </dev/null', "-", *argv], stdin=reading, close_fds=True)
        for _ in range(20)
    ]
    os.close(reading)
    os.close(writing)
    assert sorted(racer.wait(20) for racer in racers) == [4] + 19 * [CLAIM_TAKEN]
    assert (shim.folder / "runs").read_text() == "ran\n"
    assert shim.outcome().code == 4


def test_a_late_shim_leaves_the_records_of_the_first_untouched(shim):
    shim.sh("echo first; exit 3")
    before = {path.name: path.read_bytes() for path in shim.folder.iterdir()}
    assert shim.sh("echo second") == CLAIM_TAKEN
    assert {path.name: path.read_bytes() for path in shim.folder.iterdir()} == before


def test_a_late_shim_leaves_a_running_program_alone(shim):
    os.mkfifo(shim.folder / "gate")
    with shim.popen(["sh", "-c", "read -r word <gate; echo $word; exit 6"]) as first:
        wait_until(lambda: shim.witness().claimed)
        assert shim.sh("echo second") == CLAIM_TAKEN
        assert shim.witness().outcome is None
        (shim.folder / "gate").write_text("opened\n")
        assert first.wait(20) == 6
    assert shim.log() == b"opened\n"


def test_the_start_record_names_the_shim_its_machine_and_boot(shim):
    process = shim.popen(["true"])
    process.communicate()
    start = shim.witness().start
    assert start is not None
    assert (start.pid, start.host, start.boot) == (process.pid, hostname(), boot_id())


def test_a_place_that_the_submitter_knows_is_taken_as_it_is(shim):
    shim.run(["true"], place="host=here boot=now")
    start = shim.witness().start
    assert start is not None
    assert (start.host, start.boot) == ("here", "now")


def test_start_and_end_are_told_on_the_machines_own_clock(shim):
    before = time.time()
    shim.sh(":")
    witness, after = shim.witness(), time.time()
    tick = 0.03  # /proc/uptime counts hundredths
    assert before - tick <= witness.started <= witness.ended + tick <= after + 2 * tick


def test_nothing_runs_where_the_jobs_folder_is_gone(shim, tmp_path):
    ran = tmp_path / "ran"
    base = str(tmp_path / "gone" / "0.0.0")
    assert shim.run(["touch", str(ran)], base=base, pad=False) == CLAIM_TAKEN
    assert not ran.exists()


# The program's end.


@pytest.mark.parametrize("code", [0, 1, 3, 124, 125, 255])
def test_the_exit_code_is_the_programs(shim, code):
    assert shim.sh(f"exit {code}") == code
    assert (shim.outcome().code, shim.outcome().signals) == (code, ())


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "INT", "HUP"])
def test_a_program_that_a_signal_ends_is_reported_as_a_shell_does_and_its_log_stays_clean(shim, name):
    number = getattr(signal, f"SIG{name}")
    # A program that may have been born ignoring INT, as background jobs of sh are, takes it back first.
    program = [
        shutil.which("env") or "env",
        f"--default-signal={name}" if name != "KILL" else "-u=",
        "sh",
        "-c",
        f"kill -{name} $$",
    ]
    if name == "KILL":
        program = program[2:]
    assert shim.run(program) == 128 + number
    assert (shim.outcome().code, shim.outcome().signals) == (128 + number, ())
    assert shim.log() == b""


def test_a_command_that_is_not_there_is_127_and_named_in_the_log(shim):
    assert shim.run(["no-such-command-here"]) == 127
    assert shim.outcome().code == 127
    assert b"no-such-command-here" in shim.log()


def test_a_command_that_cannot_be_executed_is_126(shim):
    (shim.folder / "plain").write_text("hello")
    assert shim.run(["./plain"]) == 126
    assert shim.outcome().code == 126


def test_a_missing_working_directory_is_126_and_named_in_the_log(shim, tmp_path):
    ran = tmp_path / "ran"
    assert shim.run(["touch", str(ran)], cwd=tmp_path / "not there") == 126
    assert shim.outcome().code == 126
    assert b"not there" in shim.log()
    assert not ran.exists()


def test_an_outcome_is_not_there_before_the_end(shim):
    os.mkfifo(shim.folder / "gate")
    with shim.popen(["sh", "-c", "read -r word <gate"]) as process:
        wait_until(lambda: shim.witness().claimed)
        assert shim.witness().outcome is None
        (shim.folder / "gate").write_text("\n")
        process.wait(20)
    assert shim.outcome().code == 0


def test_the_shim_starts_no_process_but_the_program(shim):
    os.mkfifo(shim.folder / "gate")
    with shim.popen(["sh", "-c", "echo $$; read -r word <gate"]) as process:
        wait_until(lambda: os.path.exists(f"{shim.base}.out") and shim.log().endswith(b"\n"))
        session = session_of(process.pid)
        (shim.folder / "gate").write_text("\n")
        process.wait(20)
    assert sorted(session) == sorted([process.pid, int(shim.log())])


def session_of(leader: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):  # somebody else's, which ended while we looked
            if os.getsid(int(path.name)) == leader:
                found.append(int(path.name))
    return found


# Signals.


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_the_shim_alone_is_noted_and_the_program_goes_on(shim, name):
    os.mkfifo(shim.folder / "gate")
    with shim.popen(["sh", "-c", "echo up; read -r word <gate; echo $word; exit 5"]) as process:
        wait_until(lambda: os.path.exists(f"{shim.base}.out") and shim.log() == b"up\n")
        process.send_signal(getattr(signal, f"SIG{name}"))
        (shim.folder / "gate").write_text("done\n")
        assert shim.ended(process, 5, signals=(name,))
    assert shim.log() == b"up\ndone\n"


def test_forwarded_signals_reach_the_program_and_are_noted_once_in_order(shim):
    # No process but this one: in the instant between fork and exec a shell loses signals.
    script = "trap 'echo usr' USR1; trap 'echo term' TERM; echo up; while ! [ -e stop ]; do :; done; exit 9"
    with shim.popen(["sh", "-c", script], forward=True) as process:
        for count, number in enumerate([signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1]):
            wait_until(lambda count=count: os.path.exists(f"{shim.base}.out") and shim.log().count(b"\n") == count + 1)
            process.send_signal(number)
        wait_until(lambda: shim.log().count(b"\n") == 4)
        (shim.folder / "stop").touch()
        assert shim.ended(process, 9, signals=("USR1", "TERM"))
    assert shim.log() == b"up\nusr\nterm\nusr\n"


def test_a_signal_that_comes_as_soon_as_the_program_runs_is_forwarded(shim):
    """The shell may have started it, and not yet have put its number down."""
    script = "trap 'exit 7' USR1; kill -USR1 $PPID; n=0; while [ $n -lt 300000 ]; do n=$((n + 1)); done; exit 9"
    for rank in range(30):
        suffix = rank_suffix(rank)
        assert shim.run(["sh", "-c", script], suffix=suffix, forward=True) in (7, CLAIM_TAKEN)
        # 125 is bash, which lost the status and says so.
        assert shim.outcome(suffix).code in (7, None)
        assert shim.outcome(suffix).signals == ("USR1",)


def test_a_program_that_ignores_term_succeeds_with_the_signal_noted(shim):
    script = "trap '' TERM; echo up; while ! [ -e stop ]; do sleep 0.01; done"
    with shim.popen(["sh", "-c", script]) as process:
        wait_until(lambda: os.path.exists(f"{shim.base}.out") and shim.log() == b"up\n")
        os.killpg(process.pid, signal.SIGTERM)
        wait_until(lambda: "TERM" not in pending(process.pid))
        (shim.folder / "stop").touch()
        assert shim.ended(process, 0, signals=("TERM",))


def test_a_program_that_term_ends_is_143_with_the_signal_noted(shim):
    with shim.popen(["sh", "-c", "echo up; exec sleep 60"]) as process:
        wait_until(lambda: os.path.exists(f"{shim.base}.out") and shim.log() == b"up\n")
        os.killpg(process.pid, signal.SIGTERM)
        assert shim.ended(process, 143, signals=("TERM",))
    assert shim.log() == b"up\n"


@pytest.mark.parametrize("number", range(8))
def test_a_storm_of_signals_to_the_shim_neither_reaches_the_program_nor_changes_its_exit_code(shim, number):
    script = "trap 'exit 99' TERM HUP USR1 USR2; echo up; while ! [ -e stop ]; do sleep 0.002; done; exit 7"
    with shim.popen(["sh", "-c", script]) as process:
        wait_until(lambda: os.path.exists(f"{shim.base}.out") and shim.log() == b"up\n")
        for count in range(100):
            process.send_signal(getattr(signal, f"SIG{SIGNALS[count * number % 4]}"))
            if count == 50:
                (shim.folder / "stop").touch()
        shim.ended(process, 7, signals=())


def pending(pid):
    """Return the names of our four signals that a process has not taken in yet, from proc_pid_status(5)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    bits = int(status["ShdPnd"], 16) | int(status["SigPnd"], 16)
    return {name for name in SIGNALS if bits >> (getattr(signal, f"SIG{name}") - 1) & 1}


# Streams.


def test_standard_error_joins_the_log_in_order(shim):
    shim.sh("echo one; echo two >&2; echo three")
    assert shim.log() == b"one\ntwo\nthree\n"
    assert not os.path.exists(f"{shim.base}.err")


def test_separate_standard_error_has_a_file_of_its_own(shim):
    shim.sh("echo one; echo two >&2; echo three", separate_stderr=True)
    assert (shim.log("out"), shim.log("err")) == (b"one\nthree\n", b"two\n")


def test_a_message_about_a_missing_command_goes_to_separate_standard_error(shim):
    shim.run(["no-such-command-here"], separate_stderr=True)
    assert shim.log("out") == b""
    assert b"no-such-command-here" in shim.log("err")


def test_standard_input_is_empty(shim):
    assert shim.run(["cat"]) == 0
    assert shim.log() == b""


def test_output_arrives_byte_for_byte(shim):
    shim.run([PRINTF, r"\000\377\r\n\033[31m\200 no newline at the end"])
    assert shim.log() == b"\0\xff\r\n\x1b[31m\x80 no newline at the end"


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_the_files_of_a_rank_end_in_its_number(shim, rank):
    suffix = rank_suffix(rank)
    assert shim.sh("echo out; echo err >&2; exit 2", suffix=suffix, separate_stderr=True) == 2
    found = {path.name for path in shim.folder.iterdir()}
    assert found == {f"0.0.0.{name}.{rank}" for name in ("start", "outcome", "out", "err")}
    assert shim.outcome(suffix).code == 2


def test_ranks_of_one_member_do_not_take_each_others_claim(shim):
    assert [shim.sh(f"exit {rank}", suffix=rank_suffix(rank)) for rank in range(3)] == [0, 1, 2]


# A full disk.


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def test_on_a_full_disk_the_program_runs_and_its_outcome_arrives(shell, disk, tmp_path):
    shim = Shim(shell, disk.path)
    pad_outcome(shim.base, "")
    disk.fill()
    assert shim.sh(f"echo ran >'{tmp_path}/ran'; exit 7") == 7
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert shim.outcome().code == 7


def test_on_a_full_disk_a_claim_without_its_text_still_counts(shell, disk):
    shim = Shim(shell, disk.path)
    pad_outcome(shim.base, "")
    disk.fill()
    assert shim.sh("exit 7") == 7
    witness = shim.witness()
    assert (witness.claimed, witness.start) == (True, None)
    assert shim.sh("exit 8") == CLAIM_TAKEN
    assert shim.outcome().code == 7


def test_a_later_incarnation_pads_its_own_outcome(shim):
    assert shim.sh("exit 3", pad=False) == 3
    assert shim.outcome().code == 3
    assert os.path.getsize(f"{shim.base}.outcome") >= len(OUTCOME_PADDING)


def test_a_later_incarnation_that_cannot_pad_says_why(shim):
    base = base_path(str(shim.folder / "missing"), 0, 1, 0)
    with shim.popen(["true"], base=base, pad=False) as process:
        said = process.communicate(timeout=20)[1]
    assert process.returncode == CLAIM_TAKEN
    assert b"missing/0.1.0.outcome" in said


@pytest.mark.parametrize("missing", ["elsewhere.sh", "edges.sh"])
def test_a_shim_that_cannot_read_what_it_needs_runs_nothing(shim, missing):
    support, ran = shim.folder / "support", shim.folder / "ran"
    shutil.copytree(Path(SHIM).parent, support, ignore=lambda _, names: {*names} - {"shim.sh", "elsewhere.sh"})
    (support / missing).unlink(missing_ok=True)
    (shim.folder / "0.after").write_text("any 0: elsewhere/0\n")
    pad_outcome(shim.base, "")
    argv = [*shim.shell, *shim_argv(str(support / "shim.sh"), shim.base, "", str(shim.folder), ["touch", str(ran)])]
    assert subprocess.run(argv, stderr=subprocess.PIPE, timeout=20, check=False).returncode in (2, CLAIM_TAKEN)
    assert not ran.exists()
    assert not shim.witness().claimed


def test_a_later_incarnation_that_cannot_pad_runs_nothing_and_claims_nothing(shell, disk, tmp_path):
    shim = Shim(shell, disk.path)
    disk.fill()
    assert shim.run(["touch", str(tmp_path / "ran")], pad=False) == CLAIM_TAKEN
    assert not (tmp_path / "ran").exists()
    assert not shim.witness().claimed


# What arrives (E10).

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
EVERY_SHELL = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EVERY_SHELL
@given(arguments=st.lists(TEXT, min_size=1, max_size=6))
@example(
    arguments=["", "a b", "'", '"', "\n", "$HOME", "`id`", "\\", "-n", "--", "*", "é😀", "a\tb ", "!", "~", "#", "\r"]
)
def test_arguments_arrive_exactly(shell, tmp_path_factory, arguments):
    shim = Shim(shell, tmp_path_factory.mktemp("arguments"))
    shim.run([PRINTF, r"%s\0", *arguments])
    assert shim.log() == b"".join(argument.encode() + b"\0" for argument in arguments)


@EVERY_SHELL
@given(value=TEXT)
@example(value="a b'\"\n$HOME`id`\\ é😀 ")
def test_environment_values_arrive_exactly(shell, tmp_path_factory, value):
    shim = Shim(shell, tmp_path_factory.mktemp("environment"))
    shim.run([shutil.which("env") or "env", "-0"], env={"DECLARED": value})
    assert b"DECLARED=" + value.encode() in shim.log().split(b"\0")


@pytest.mark.parametrize("name", ["a b", "new\nline", "$HOME", "it's", '"quoted"', "é😀", "-P", "..."])
def test_the_working_directory_arrives_exactly(shim, name):
    folder = shim.folder / name
    folder.mkdir()
    shim.run([shutil.which("pwd") or "/bin/pwd"], cwd=folder)
    assert shim.log() == os.fsencode(folder) + b"\n"


def test_names_of_the_shims_own_variables_arrive_as_the_environment_has_them(shim):
    names = ["base", "suffix", "cwd", "stderr", "forward", "place", "noted", "program", "code", "now", "outcome"]
    shim.run([shutil.which("env") or "env", "-0"], env=dict.fromkeys(names, "mine"))
    found = dict(entry.partition(b"=")[::2] for entry in shim.log().split(b"\0"))
    assert {name: found.get(name.encode()) for name in names} == dict.fromkeys(names, b"mine")
