"""Each field becomes the option of sbatch that it is called after, and what sbatch would not take is refused."""

from __future__ import annotations

import attrs
import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.options import FLAGS, directives
from nemorun_slurm.placement import components
from nemorun_slurm.tunnel import LocalTunnel, SSHTunnel

from nemorun_core import Executor, UsageError

GIVEN = {
    "account": ("team", "--account=team"),
    "partition": ("a,b", "--partition=a,b"),
    "qos": ("high", "--qos=high"),
    "reservation": ("r", "--reservation=r"),
    "time": ("1-12:30", "--time=1-12:30"),
    "nodes": (2, "--nodes=2"),
    "ntasks": (3, "--ntasks=3"),
    "ntasks_per_node": (4, "--ntasks-per-node=4"),
    "cpus_per_task": (5, "--cpus-per-task=5"),
    "cpus_per_gpu": (6, "--cpus-per-gpu=6"),
    "gpus_per_node": (8, "--gpus-per-node=8"),
    "gpus_per_task": ("a100:1", "--gpus-per-task=a100:1"),
    "gres": ("gpu:2", "--gres=gpu:2"),
    "mem": ("16G", "--mem=16G"),
    "mem_per_cpu": (100, "--mem-per-cpu=100"),
    "mem_per_gpu": ("1G", "--mem-per-gpu=1G"),
    "constraint": ("a&b", '--constraint="a&b"'),
    "nodelist": ("n[1-2]", "--nodelist=n[1-2]"),
    "exclude": ("n3", "--exclude=n3"),
    "exclusive": (True, "--exclusive"),
    "segment": (4, "--segment=4"),
    "network": ("sharp", "--network=sharp"),
    "signal": ("USR1@60", "--signal=USR1@60"),
    "requeue": (3, "--requeue"),
    "comment": ("a b", '--comment="a b"'),
    "open_mode": ("truncate", "--open-mode=truncate"),
    "export": ("NONE", "--export=NONE"),
}


def lines(executor, timeout_seconds=None):
    [component] = components([executor])
    return [line.removeprefix("#SBATCH ") for line in directives(component, timeout_seconds)]


def test_every_option_is_tested():
    assert set(GIVEN) == set(FLAGS)


@pytest.mark.parametrize("field", GIVEN)
def test_a_field_becomes_its_option(field):
    value, line = GIVEN[field]
    executor = SlurmExecutor(**{field: value})
    executor.check()
    assert line in lines(executor)


def test_what_is_not_given_is_the_sites_to_decide():
    assert lines(SlurmExecutor()) == ["--open-mode=append", "--export=ALL"]


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("exclusive", "user", "--exclusive=user"),
        ("requeue", True, "--requeue"),
        ("requeue", 0, "--no-requeue"),
        ("requeue", False, "--no-requeue"),
    ],
)
def test_a_field_has_other_forms(field, value, line):
    assert line in lines(SlurmExecutor(**{field: value}))


def test_gpus_of_each_task_need_the_number_of_tasks():
    assert "--ntasks=8" in lines(SlurmExecutor(nodes=2, ntasks_per_node=4, gpus_per_task=1))
    [component] = components([SlurmExecutor(nodes=1, ntasks_per_node=4, gpus_per_task=1)] * 3)
    assert "#SBATCH --ntasks=12" in directives(component, None)


def test_a_timeout_is_told_to_slurm_a_minute_later():
    assert "--time=3" in lines(SlurmExecutor(timeout_seconds=61.0), 61.0)
    assert "--time=10" in lines(SlurmExecutor(time="10", timeout_seconds=61.0), 61.0)


def test_other_options_are_added():
    parameters = {"mail_user": "a b", "nice": 5, "spread-job": True}
    executor = SlurmExecutor(additional_parameters=parameters)
    executor.check()
    assert lines(executor)[-3:] == ['--mail-user="a b"', "--nice=5", "--spread-job"]


REFUSED = [
    {"nodes": 0},
    {"nodes": "2-4"},
    {"ntasks_per_node": True},
    {"account": ""},
    {"account": "a\nb"},
    {"comment": "a\nb"},
    {"account": 3.5},
    {"mem": "1G", "mem_per_cpu": "1G"},
    {"time": "soon"},
    {"open_mode": "w"},
    {"requeue": -1},
    {"exclusive": 3},
    {"signal": "INT@60"},
    {"signal": "KILL"},
    {"signal": "B:USR1@60"},
    {"additional_parameters": {"array": "1-3"}},
    {"additional_parameters": {"job_name": "mine"}},
    {"additional_parameters": {"mem": "1G"}},
    {"additional_parameters": {"no-requeue": True}},
    {"additional_parameters": {"a b": "c"}},
    {"additional_parameters": {"nice": None}},
    {"job_name_prefix": "-x"},
    {"job_name_prefix": "a b"},
    {"job_name_prefix": "a" * 65},
    {"srun_args": ["mpi=none"]},
    {"srun_args": ["--export=NONE"]},
    {"srun_args": ["--label", "-n4"]},
    {"srun_args": ["--mpi", "none"]},
    {"additional_parameters": {"ntasks_per_gpu": 1}},
    {"setup_lines": "a\0b"},
    {"launcher": "torchrun", "gpus_per_task": 1},
    {"launcher": "torchrun", "ntasks": 4},
    {"container_mounts": ["/a:/b"]},
    {"container_image": ""},
    {"container_image": "a", "container_mounts": ["/a:/b,/c:/d"]},
    {"container_image": "a", "container_env": ["A=B"]},
    {"container_image": "a", "container_runtime": "docker"},
]


@pytest.mark.parametrize("fields", REFUSED, ids=str)
def test_what_cannot_be_honoured_is_refused(fields):
    with pytest.raises(UsageError, match=list(fields)[-1]):
        SlurmExecutor(**fields).check()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"additional_parameters": {"licenses": "a\nb"}}, "--licenses"),
        ({"tunnel": SSHTunnel(host="", job_dir="/a")}, "host"),
    ],
)
def test_what_lies_within_a_field_is_refused(fields, word):
    with pytest.raises(UsageError, match=word):
        SlurmExecutor(**fields).check()


def test_other_options_of_srun_are_taken():
    SlurmExecutor(srun_args=["--cpu-bind=cores", "--mpi=pmix", "-l", "--kill-on-bad-exit=1"]).check()


@pytest.mark.parametrize("signal", ["USR1@120", "SIGTERM@60", "R:USR2@30", "10@60", "HUP"])
def test_a_signal_that_the_program_outlives_is_taken(signal):
    SlurmExecutor(signal=signal).check()


@pytest.mark.parametrize("time", ["90", "90:30", "2:30:00", "1-12", "1-12:30", "1-12:30:00", "UNLIMITED"])
def test_slurms_forms_of_a_time_are_taken(time):
    SlurmExecutor(time=time).check()


@pytest.mark.parametrize(
    ("fields", "ranks"),
    [
        ({}, 1),
        ({"nodes": 3}, 3),
        ({"nodes": 2, "ntasks_per_node": 4}, 8),
        ({"ntasks_per_node": 4}, 4),
        ({"nodes": 2, "ntasks": 5}, 5),
        ({"nodes": 2, "ntasks_per_node": 8, "launcher": "torchrun"}, 2),
    ],
)
def test_ranks_are_the_tasks_that_slurm_starts(fields, ranks):
    executor = SlurmExecutor(**fields)
    executor.check()
    assert executor.ranks() == ranks


def test_files_are_shared_where_the_commands_run_here():
    here, there = LocalTunnel(), SSHTunnel(host="login", job_dir="/home/me/jobs")
    assert SlurmExecutor(tunnel=here).capabilities().shares_files
    assert not SlurmExecutor(tunnel=there).capabilities().shares_files
    assert SlurmExecutor(tunnel=here).connection() != SlurmExecutor(tunnel=there).connection()
    assert SlurmExecutor(account="a").connection() == SlurmExecutor(account="b").connection()


def test_an_executor_reads_back_as_it_was_written():
    from nemorun_core.registry import default_registry

    executor = SlurmExecutor(
        **{field: value for field, (value, _) in GIVEN.items()},
        additional_parameters={"nice": 5, "spread_job": True, "licenses": "a"},
        het_group_indices=[0, 1],
        tunnel=SSHTunnel(host="login", job_dir="/jobs", options=("-v",)),
    )
    registry = default_registry()
    assert registry.read_executor(registry.record("nemorun.executors", executor)) == executor


@pytest.mark.parametrize("requeue", [True, False, 0, 1, 3, None])
def test_one_restart_is_not_taken_for_any_number(requeue):
    from nemorun_core.registry import default_registry

    registry = default_registry()
    read = registry.read_executor(registry.record("nemorun.executors", SlurmExecutor(requeue=requeue)))
    assert repr(read.requeue) == repr(requeue)


def test_none_is_the_same_as_nothing_given():
    names = ["container_mounts", "container_env", "srun_args", "setup_lines", "additional_parameters"]
    assert SlurmExecutor(**dict.fromkeys(names)) == SlurmExecutor()


def test_every_field_is_described():
    own = {field.name for field in attrs.fields(SlurmExecutor)} - {field.name for field in attrs.fields(Executor)}
    described = SlurmExecutor.__doc__ or ""
    assert [name for name in own - set(FLAGS) if name not in described] == []
