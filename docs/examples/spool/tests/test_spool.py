"""The spool keeps the laws of nemorun's backends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import nemorun_spool
import pytest
from nemorun_devkit import ExecutorLaws
from nemorun_spool import SpoolBackend, SpoolExecutor

import nemorun_core as run


class TestSpool(ExecutorLaws):
    @pytest.fixture
    def executor(self, tmp_path):
        folder = tmp_path / "spool"
        folder.mkdir()
        return SpoolExecutor(folder=str(folder))

    @pytest.fixture
    def file_of(self, executor):
        return lambda handle: Path(executor.folder, f"{handle}.job")

    @pytest.fixture
    def scheduler_down(self, executor):
        """The folder is not there for a while."""

        @contextlib.contextmanager
        def down():
            os.rename(executor.folder, f"{executor.folder}.away")
            yield
            os.rename(f"{executor.folder}.away", executor.folder)

        return down

    @pytest.fixture
    def scheduler_full(self, monkeypatch):
        """The machine has no room for another process, fork(2)."""

        @contextlib.contextmanager
        def full():
            with monkeypatch.context() as patch:
                patch.setattr(nemorun_spool, "start", refuse)
                yield

        def refuse(job):
            raise BlockingIOError("Resource temporarily unavailable")

        return full

    @pytest.fixture
    def answer_lost(self, monkeypatch):
        """The job is in the spool and runs, and its submitter is told of an error."""

        @contextlib.contextmanager
        def lost():
            offer = SpoolBackend.offer

            def lose(*arguments):
                offer(*arguments)
                raise run.TransientError("the answer got lost")

            with monkeypatch.context() as patch:
                patch.setattr(SpoolBackend, "offer", lose)
                yield

        return lost

    @pytest.fixture
    def accepted_late(self, monkeypatch):
        """The job comes into the spool when its submitter has given up."""

        @contextlib.contextmanager
        def late():
            offer, waiting = SpoolBackend.offer, []

            def put_off(*arguments):
                waiting.append(arguments)
                raise run.TransientError("it takes too long")

            with monkeypatch.context() as patch:
                patch.setattr(SpoolBackend, "offer", put_off)
                yield
            for arguments in waiting:
                offer(*arguments)

        return late

    @pytest.fixture
    def expire(self, file_of):
        """Somebody cleans the folder up."""
        return lambda handle: file_of(handle).unlink()

    @pytest.fixture
    def namesake(self, file_of):
        """Another key's job has the name, and runs."""
        programs = []

        def put(job):
            key, file = "0000000000000000/theirs/0", file_of(job.key.slug())
            file.write_text(json.dumps({"key": key}))
            program = subprocess.Popen(["sleep", "60"], env={**os.environ, nemorun_spool.MARK: key})
            programs.append(program)
            return lambda: program.poll() is None and json.loads(file.read_text()) == {"key": key}

        yield put
        for program in programs:
            program.kill()
            program.wait()

    @pytest.fixture
    def count_queries(self, executor, monkeypatch):
        """A query lists the folder."""
        asked, listdir = [], os.listdir

        def counted(path="."):
            asked.append(path)
            return listdir(path)

        monkeypatch.setattr(os, "listdir", counted)
        return lambda: asked.count(executor.folder)

    @pytest.fixture
    def submitted_documents(self, file_of):
        def read(job):
            file = file_of(job.key.slug())
            return [run.Document(file.name, file.read_text())]

        return read

    @pytest.fixture
    def kept_by_scheduler(self, executor):
        return lambda: [file.read_bytes() for file in Path(executor.folder).iterdir()]

    @pytest.fixture
    def unhonoured_executors(self, executor):
        return [SpoolExecutor(folder=executor.folder, timeout_seconds=60.0)]
