"""The command lines of torchrun, word for word."""

from __future__ import annotations

import pytest
from nemorun_torchrun import Torchrun

from nemorun_core import Command, Experiment, LocalExecutor, Partial, Script, UsageError

PYTHON = Command(argv=("python", "train.py", "--lr", "0.1"))
MEETING = '--rdzv-backend=c10d --rdzv-id="$NEMORUN_EXPERIMENT_ID-$NEMORUN_HEAD_PORT-$NEMORUN_ATTEMPT-0"'


def wrapped(launcher=None, command=PYTHON, member=0, peers=(0,), **fields):
    return (launcher or Torchrun()).wrap(command, LocalExecutor(**fields), member, peers).argv


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("python", "train.py", "a b"), ("python", "-m", "torch.distributed.run", "train.py", "a b")),
        (
            ("/usr/bin/python3.11", "-m", "pkg", "x"),
            ("/usr/bin/python3.11", "-m", "torch.distributed.run", "--module", "pkg", "x"),
        ),
        (("bash", "train.sh"), ("torchrun", "--no-python", "bash", "train.sh")),
        (("python", "-c", "pass"), ("torchrun", "--no-python", "python", "-c", "pass")),
        (("python",), ("torchrun", "--no-python", "python")),
        (("pythonic", "a"), ("torchrun", "--no-python", "pythonic", "a")),
    ],
)
def test_on_one_node_it_meets_alone_and_starts_python_by_the_tasks_own_interpreter(argv, expected):
    words = wrapped(command=Command(argv=argv))
    options = ("--standalone", "--nproc-per-node=1", "--max-restarts=0")
    assert set(options) < set(words)
    assert tuple(word for word in words if word not in options) == expected


def test_an_executors_python_runs_torchrun_where_the_task_names_none():
    words = wrapped(command=Command(argv=("bash", "x.sh")), python="/opt/python")
    assert words[:3] == ("/opt/python", "-m", "torch.distributed.run")


def test_nodes_of_a_member_meet_at_its_head():
    assert wrapped(nodes=2, ntasks_per_node=4) == (
        "sh",
        "-c",
        'exec python -m torch.distributed.run --nnodes="$(($NEMORUN_NNODES * 1))" '
        + MEETING
        + ' --rdzv-endpoint="$NEMORUN_HEAD_HOST:$NEMORUN_HEAD_PORT" "$@"',
        "torchrun",
        "--nproc-per-node=4",
        "--max-restarts=0",
        "train.py",
        "--lr",
        "0.1",
    )


def test_members_with_equal_launchers_are_nodes_of_one_meeting():
    text = wrapped(member=2, peers=(1, 2))[2]
    assert '--nnodes="$(($NEMORUN_NNODES * 2))"' in text
    assert '--rdzv-endpoint="$NEMORUN_MEMBER_1_HOST:$NEMORUN_HEAD_PORT"' in text
    assert 'ATTEMPT-1"' in text


def test_a_static_meeting_numbers_its_nodes():
    text = wrapped(Torchrun(rdzv_backend="static", rdzv_port=29500), member=1, peers=(0, 1))[2]
    assert text == (
        'exec python -m torch.distributed.run --nnodes="$(($NEMORUN_NNODES * 2))" '
        '--node-rank="$(($NEMORUN_NNODES * 1 + $NEMORUN_NODE_RANK))" '
        '--master-addr="$NEMORUN_HEAD_HOST" --master-port="29500" "$@"'
    )


def test_options_stand_before_what_is_started():
    words = wrapped(Torchrun(nproc_per_node="gpu", max_restarts=2, extra_args=["--tee", "3"]))
    assert words == (
        *("python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=gpu", "--max-restarts=2"),
        *("--tee", "3", "train.py", "--lr", "0.1"),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"nproc_per_node": 0},
        {"nproc_per_node": "all"},
        {"nproc_per_node": True},
        {"rdzv_backend": "smoke"},
        {"rdzv_port": 0},
        {"rdzv_port": 65536},
        {"max_restarts": -1},
    ],
)
def test_values_that_torchrun_would_not_take_are_refused_by_add(fields):
    with Experiment("refused") as experiment, pytest.raises(UsageError, match=next(iter(fields))):
        experiment.add(Script(inline="true"), LocalExecutor(launcher=Torchrun(**fields)))


def test_its_name_is_short_for_its_defaults(capsys):
    with Experiment("named") as experiment:
        executor = LocalExecutor(launcher="torchrun", ntasks_per_node=3)
        experiment.add(Partial(print, "hello"), executor, name="job")
        experiment.dryrun()
    shown = capsys.readouterr().out
    assert "-m torch.distributed.run --standalone --nproc-per-node=3 --max-restarts=0 " in shown
    assert "runner.py" in shown
