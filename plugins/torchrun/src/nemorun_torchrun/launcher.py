"""`Torchrun`: a member's command, started by torchrun on each of its nodes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

import attrs

from nemorun_core import Command, Executor, Launcher, UsageError

__all__ = ["Torchrun"]

_BACKENDS = ("c10d", "etcd", "etcd-v2", "static")
_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")


@attrs.define(kw_only=True)
class Torchrun(Launcher):
    """Starts the program with torchrun(1) of PyTorch 2, once on each node, which starts the processes there.

    Members of a group whose launchers are equal are nodes of one meeting; a single job meets over its own nodes.
    A Python script or module is run by the interpreter that the task names; anything else as it is (`--no-python`).
    torchrun's own exit code is the job's: 1 where any process failed.

    Attributes:
        nproc_per_node: processes on each node: a number, "gpu", "cpu" or "auto"; None: the executor's
            `ntasks_per_node`, where it has that, else 1.
        rdzv_backend: how nodes meet: "c10d", or "static", "etcd", "etcd-v2". Not used on a single node.
        rdzv_port: the port of the meeting point; None: one that the executor found free, where it says so.
        max_restarts: how often torchrun starts its processes again before it fails.
        extra_args: more options of torchrun, as they are.
    """

    nproc_per_node: int | str | None = None
    rdzv_backend: str = "c10d"
    rdzv_port: int | None = None
    max_restarts: int = 0
    extra_args: list[str] = attrs.field(factory=list)

    def check(self, executor: Executor) -> None:
        """Refuse values that torchrun would not take. Raises UsageError."""
        number = self.nproc_per_node
        if number not in (None, "gpu", "cpu", "auto") and not _is_whole(number, 1):
            raise UsageError(
                f"Torchrun(nproc_per_node={number!r}): expected a whole number, 1 or more, 'gpu', 'cpu' or 'auto'."
            )
        if self.rdzv_backend not in _BACKENDS:
            raise UsageError(f"Torchrun(rdzv_backend={self.rdzv_backend!r}): expected one of {', '.join(_BACKENDS)}.")
        if self.rdzv_port is not None and not (_is_whole(self.rdzv_port, 1) and self.rdzv_port < 65536):
            raise UsageError(f"Torchrun(rdzv_port={self.rdzv_port!r}): expected a port, 1 to 65535.")
        if not _is_whole(self.max_restarts, 0):
            raise UsageError(f"Torchrun(max_restarts={self.max_restarts!r}): expected a whole number, 0 or more.")

    def wrap(self, command: Command, executor: Executor, member: int, peers: Sequence[int]) -> Command:
        """Return torchrun's command line. Where nodes meet, a shell puts in what only the node knows."""
        number = self.nproc_per_node
        if number is None:
            number = getattr(executor, "ntasks_per_node", None) or 1
        options = [f"--nproc-per-node={number}", f"--max-restarts={self.max_restarts}"]
        program, target = self._program(command.argv, executor)
        if len(peers) == 1 and getattr(executor, "nodes", 1) in (1, None):
            return command._replace(argv=(*program, "--standalone", *options, *self.extra_args, *target))
        place, nodes = peers.index(member), "$NEMORUN_NNODES"
        host = "$NEMORUN_HEAD_HOST" if peers[0] == 0 else f"$NEMORUN_MEMBER_{peers[0]}_HOST"
        port = "$NEMORUN_HEAD_PORT" if self.rdzv_port is None else str(self.rdzv_port)
        meeting = [f'--nnodes="$(({nodes} * {len(peers)}))"']
        if self.rdzv_backend == "static":
            rank = f'--node-rank="$(({nodes} * {place} + $NEMORUN_NODE_RANK))"'
            meeting += [rank, f'--master-addr="{host}"', f'--master-port="{port}"']
        else:
            name = f'--rdzv-id="$NEMORUN_EXPERIMENT_ID-$NEMORUN_HEAD_PORT-$NEMORUN_ATTEMPT-{peers[0]}"'
            meeting += [f"--rdzv-backend={self.rdzv_backend}", name, f'--rdzv-endpoint="{host}:{port}"']
        text = f'exec {shlex.join(program)} {" ".join(meeting)} "$@"'
        return command._replace(argv=("sh", "-c", text, "torchrun", *options, *self.extra_args, *target))

    def _program(self, argv: Sequence[str], executor: Executor) -> tuple[list[str], list[str]]:
        """Return torchrun's own command, and what it is to start."""
        if len(argv) > 1 and _PYTHON.fullmatch(os.path.basename(argv[0])):
            program = [argv[0], "-m", "torch.distributed.run"]
            if argv[1] == "-m":
                return program, ["--module", *argv[2:]]
            if not argv[1].startswith("-"):
                return program, list(argv[1:])
        program = [executor.python, "-m", "torch.distributed.run"] if executor.python else ["torchrun"]
        return program, ["--no-python", *argv]


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least
