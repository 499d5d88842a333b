"""The laws with everything offered that can be broken: what correct and lying backends are both run through."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
from nemorun_devkit import ExecutorLaws
from nemorun_devkit.base import LawsBase

from nemorun_core import Document, Key

from .memory import LATE, QUERIES, Cluster, MemoryExecutor, spawn

__all__ = ["MemoryLaws", "one_law"]


class MemoryOffers(LawsBase):
    """All optional fixtures, for the executor with these fields."""

    fields: ClassVar[dict[str, object]] = {}

    @pytest.fixture
    def executor(self, tmp_path):
        return MemoryExecutor(directory=str(tmp_path / "scheduler"), **self.fields)

    @pytest.fixture
    def shared_folder(self, tmp_path):
        folder = tmp_path / "shared"
        folder.mkdir()
        return folder

    @pytest.fixture
    def cluster(self, executor):
        return Cluster(executor.directory)

    @pytest.fixture
    def scheduler_down(self, cluster):
        return breaking(cluster, "down")

    @pytest.fixture
    def answer_lost(self, cluster):
        return breaking(cluster, "lose")

    @pytest.fixture
    def scheduler_full(self, cluster):
        return breaking(cluster, "full")

    @pytest.fixture
    def accepted_late(self, cluster):
        @contextlib.contextmanager
        def late():
            with breaking(cluster, "late")():
                yield
            for name, spec, environments in LATE.pop(str(cluster.directory), []):
                cluster.start(name, spec, environments)

        return late

    @pytest.fixture
    def restart_scheduler(self, cluster):
        return lambda: Cluster(str(cluster.directory))  # all it knows is in its folder

    @pytest.fixture
    def expire(self, cluster):
        return cluster.remove

    @pytest.fixture
    def requeue(self, cluster):
        return cluster.requeue

    @pytest.fixture
    def namesake(self, cluster, kit):
        def put(job):
            name = job.key.slug()
            key = str(Key("0" * 16, "theirs", 0))
            pid = spawn(["sleep", "60"], {"PATH": "/usr/bin:/bin", "NEMORUN_KEY": key, "DEVKIT_RUN": kit.mark})
            entry = {"key": key, "where": str(cluster.directory), "grace": 10.0, "pids": [pid], "incarnation": 0}
            cluster.write(name, {**entry, "stopped": None, "shims": [], "environments": []})
            before = cluster._path(name).read_text()
            comm = Path(f"/proc/{pid}/stat")
            return lambda: (
                comm.exists()
                and comm.read_text().split(") ")[1][0] not in "ZX"
                and cluster._path(name).exists()
                and cluster._path(name).read_text() == before
            )

        return put

    @pytest.fixture
    def count_queries(self, cluster):
        return lambda: QUERIES[str(cluster.directory)]

    @pytest.fixture
    def submitted_documents(self, cluster):
        def read(job):
            entry = json.loads(cluster._path(job.key.slug()).read_text())
            given = {name: entry[name] for name in ("key", "where", "grace", "environments", "shims")}
            return [Document("job.json", json.dumps(given, indent=1, ensure_ascii=False))]

        return read

    @pytest.fixture
    def kept_by_scheduler(self, cluster):
        return lambda: [path.read_bytes() for path in cluster.directory.rglob("*") if path.is_file()]

    @pytest.fixture
    def unhonoured_executors(self, executor):
        return [attrs.evolve(executor, directory=""), attrs.evolve(executor, timeout_seconds=1.0)]


class MemoryLaws(MemoryOffers, ExecutorLaws):
    """All laws."""


def one_law(law):
    """Return the class of one law's tests, with everything offered."""
    [found] = [base for base in ExecutorLaws.__mro__ if base.__name__ == f"Law{law}"]
    return MemoryOffers, found


def breaking(cluster, what):
    @contextlib.contextmanager
    def broken():
        path = cluster.directory / what
        path.touch()
        try:
            yield
        finally:
            path.unlink()

    return broken
