"""`nemorun run`: a function or script of a file becomes an experiment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

FILE = """
import dataclasses, enum, pathlib, typing

@dataclasses.dataclass
class Model:
    hidden: int = 8
    act: typing.Literal["relu", "gelu"] = "relu"

class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"

def train(
    lr: float, steps: int = 10, model: Model = Model(), tags: list[str] = [], dry: bool = False,
    name: typing.Optional[str] = None, where: pathlib.Path = pathlib.Path("."), mode: Mode = Mode.FAST, extra=None,
):
    print([lr, steps, model, tags, dry, name, where, mode, extra])

def fails():
    raise SystemExit(3)

def either(value: int | str):
    print(repr(value))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work.py").write_text(FILE)
    (tmp_path / "hello.sh").write_text('echo "$0: $#: $1,$2 $SEED"\n')
    return tmp_path


def test_arguments_are_read_by_the_signature(shell, folder):
    said = shell(
        "nemorun run work.py:train lr=1e-3 steps=1_000 model.hidden=512 model.act=gelu tags=a,b dry=yes name=12 "
        "where=/x mode=SLOW extra=\"{'a': [1, 2]}\""
    )
    assert said.code == 0, said.err
    assert (
        "[0.001, 1000, Model(hidden=512, act='gelu'), ['a', 'b'], True, '12', PosixPath('/x'), <Mode.SLOW: 'slow'>, "
        "{'a': [1, 2]}]"
    ) in said.out


def test_none_and_unions_are_read_too(shell, folder):
    assert "[1.0, 10, " in (said := shell("nemorun run work.py:train lr=1 name=none extra=word")).out, said.err
    assert "False, None, " in said.out
    assert "'word'" in said.out
    assert "| 12\n" in shell("nemorun run work.py:either value=12").out
    assert "| 'abc'\n" in shell("nemorun run work.py:either value=abc").out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("work.py:train lrr=1", "Did you mean 'lr'?"),
        ("work.py:train lr=1 model.hiden=3", "Did you mean 'hidden'?"),
        ("work.py:train lr=1 steps.x=3", "'steps' is 10"),
        ("work.py:train lr=fast", "expected float, found 'fast'"),
        ("work.py:train lr=1 model.act=tanh", "one of relu, gelu"),
        ("work.py:train lr=1 mode=quick", "one of FAST, SLOW"),
        ("work.py:train lr=1 dry=perhaps", "expected bool"),
        ("work.py:train", "needs lr"),
        ("work.py:train 3", "name=value"),
        ("work.py:trian lr=1", "Did you mean work.py:train?"),
        ("wrok.py:train lr=1", "no file 'wrok.py'"),
        ("missing.sh", "no file 'missing.sh'"),
        ("json.py:train", "another name"),
        ("broken.py:train", "cannot be imported: ValueError: on purpose"),
        ("hello.sh --executor moon", "is installed (installed: "),
        ("hello.sh --executor 'local[node=2]'", "Did you mean 'nodes'?"),
        ("hello.sh --executor 'local[nodes=two]'", "expected int"),
        ("hello.sh --executor 'local[nodes'", "Quote it"),
        ("hello.sh --plugin nope", "no plugin 'nope' is installed"),
        ("hello.sh --env SEED", "NAME=VALUE"),
        ("hello.sh --flag", "--"),
    ],
)
def test_what_is_typed_wrong_is_answered_with_exit_code_2(shell, folder, nemorun_home, words, answer):
    (folder / "json.py").write_text("def train(): ...\n")
    (folder / "broken.py").write_text("raise ValueError('on purpose')\n")
    said = shell(f"nemorun run {words}")
    assert (said.code, said.out) == (2, "")
    assert answer in said.err
    assert said.err.startswith("Error: ")
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) <= 2
    assert not list(nemorun_home.rglob("experiment.json"))


def test_a_script_takes_what_stands_behind_two_dashes(shell, folder):
    said = shell("nemorun run hello.sh --env SEED=7 --name greet -- 'a b' --flag")
    assert said.code == 0
    assert "greet | " in said.out
    assert "2: a b,--flag 7\n" in said.out


def test_a_python_file_without_a_function_is_a_script(shell, folder):
    (folder / "main.py").write_text("import sys; print(sys.argv[1:])\n")
    assert "['--lr', '3']" in shell("nemorun run main.py -- --lr 3").out


def test_a_job_that_fails_is_exit_code_1(shell, folder):
    assert shell("nemorun run work.py:fails").code == 1


def test_detached_it_prints_the_id_alone(shell, folder):
    said = shell("nemorun run hello.sh --detach")
    assert said.code == 0
    assert said.out.startswith("hello.sh_")
    assert said.out.count("\n") == 1
    assert shell(f"nemorun experiment wait {said.out}").code == 0


def test_a_dry_run_prints_the_submission_and_leaves_nothing(shell, folder, nemorun_home):
    said = shell("nemorun run hello.sh --env SEED=7 --dryrun")
    assert said.code == 0
    assert "SEED=7" in said.out
    assert not list(nemorun_home.rglob("experiment.json"))


def test_verify_is_a_dry_run_that_asks_the_scheduler(shell, folder, nemorun_home):
    said = shell("nemorun run hello.sh --env SEED=7 --verify")
    assert said.code == 0
    assert "SEED=7" in said.out
    assert said.out.endswith("Task 0: hello.sh: LocalExecutor cannot be asked\n")
    assert not list(nemorun_home.rglob("experiment.json"))


def test_executor_and_plugin_take_fields(shell, folder):
    said = shell(
        'nemorun run hello.sh --name hello -e \'local[ntasks_per_node=2,env_vars={"A": "b,c"}]\' '
        "--plugin \"env[values={'SEED': '5'}]\""
    )
    assert said.code == 0, said.err
    assert said.out.count(" 5\n") == 2
    shown = json.loads(shell("nemorun experiment show hello --json").out)
    assert shown["jobs"][0]["executors"][0]["fields"]["env_vars"] == {"A": "b,c", "SEED": "5"}
    assert shown["jobs"][0]["plugins"][0]["kind"] == "env"


def test_words_of_ours_go_to_standard_error(shell, folder):
    said = shell("nemorun run hello.sh --name hello")
    assert [line for line in said.out.splitlines() if not line.startswith("hello | ")] == []
    assert "nemorun experiment status hello_" in said.err


def test_the_file_is_found_from_another_folder(shell, folder):
    os.mkdir(folder / "sub")
    assert shell("cd sub && nemorun run ../work.py:either value=1").code == 0


def test_an_interrupt_cancels_the_job_and_is_exit_code_130(shell, folder):
    (folder / "long.sh").write_text("echo ready; sleep 60\n")
    words = [sys.executable, "-m", "nemorun_core._cli", "run", "long.sh", "--name", "long"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "long | ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    shown = json.loads(shell("nemorun experiment status long --json").out)
    assert shown["jobs"][0]["state"] == "CANCELLED"
