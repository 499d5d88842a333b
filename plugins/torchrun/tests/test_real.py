"""torchrun itself, of a CPU build of PyTorch; run by `nox -s torchrun`."""

from __future__ import annotations

import os
import sys
import textwrap

import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_torchrun import Torchrun

from nemorun_core import Experiment, LocalExecutor, Partial, Script

pytestmark = pytest.mark.torch

# Read here: tests get settings of their own.
CLUSTER = os.environ.get("SLURM_CLUSTER", "")
REQUIRED = os.environ.get("NEMORUN_REQUIRE_ENGINES") == "1"

REDUCE = textwrap.dedent(
    """
    import os, sys
    import torch, torch.distributed as dist
    dist.init_process_group("gloo")
    total = torch.tensor([float(dist.get_rank() + 1)])
    dist.all_reduce(total)
    line = f"rank {dist.get_rank()} of {dist.get_world_size()}: {total.item()}\\n"
    os.write(1, line.encode())  # one write, so that lines of several processes do not mix
    dist.destroy_process_group()
    """
)


def reduce() -> None:
    exec(REDUCE, {})


@pytest.fixture
def lines(tmp_path):
    """Run tasks, and return what they printed: the lines of the all-reduce, sorted."""
    script = tmp_path / "reduce.py"
    script.write_text(REDUCE)

    def run(tasks, executor):
        with Experiment("torch", log_level="WARNING") as experiment:
            experiment.add(tasks, executor, name="job")
            experiment.run()
        folder = next(iter(experiment.status(return_dict=True).values()))["local_dir"]
        from pathlib import Path

        texts = [path.read_text() for path in Path(str(folder)).glob("0.0.*.out*") if "outcome" not in path.name]
        found = sorted(line for text in texts for line in text.splitlines() if line.startswith("rank "))
        assert experiment.wait(), "\n".join(texts)
        return found

    run.script = Script(str(script), entrypoint=sys.executable)
    return run


def expected(world):
    total = float(sum(range(1, world + 1)))
    return [f"rank {rank} of {world}: {total}" for rank in range(world)]


def test_processes_of_one_node_reduce(lines):
    assert lines(lines.script, LocalExecutor(ntasks_per_node=2, launcher="torchrun")) == expected(2)


def test_a_function_is_called_in_each_process(lines):
    assert lines(Partial(reduce), LocalExecutor(launcher=Torchrun(nproc_per_node=2))) == expected(2)


def test_a_shell_script_is_started_as_it_is(lines):
    task = Script(inline=f"{sys.executable} {lines.script.path}")
    executor = LocalExecutor(python=sys.executable, launcher=Torchrun(nproc_per_node=2))
    assert lines(task, executor) == expected(2)


@pytest.mark.parametrize("backend", ["c10d", "static"])
def test_two_members_meet(lines, backend):
    executor = LocalExecutor(launcher=Torchrun(nproc_per_node=1, rdzv_backend=backend))
    assert lines([lines.script, lines.script], executor) == expected(2)


def test_two_nodes_of_a_member_meet(lines):
    assert lines(lines.script, LocalExecutor(nodes=2, ntasks_per_node=2, launcher="torchrun")) == expected(4)


@pytest.mark.slurm
@pytest.mark.parametrize("backend", ["c10d", "static"])
def test_two_nodes_of_a_slurm_cluster_meet(lines, backend):
    """Nodes of their own names, where tests/clusters/slurm/up was given --uts."""
    if not CLUSTER:
        (pytest.fail if REQUIRED else pytest.skip)(
            "no Slurm cluster: tests/clusters/slurm/up --uts, then source its env"
        )
    launcher = Torchrun(rdzv_backend=backend)
    executor = SlurmExecutor(nodes=2, ntasks_per_node=2, mem="2G", time="10", launcher=launcher)
    assert lines(lines.script, executor) == expected(4)


def test_a_process_that_fails_fails_the_job(tmp_path):
    with Experiment("fails", log_level="WARNING") as experiment:
        task = Script(inline="import sys; sys.exit(3)", entrypoint=sys.executable)
        experiment.add(task, LocalExecutor(python=sys.executable, launcher="torchrun"), name="job")
        experiment.run()
    job = experiment.status(return_dict=True)["job"]
    assert (job["state"], job["exit_code"]) == ("FAILED", 1)
