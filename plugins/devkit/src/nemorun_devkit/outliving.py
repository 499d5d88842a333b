"""E9: jobs go on when whoever submitted them is gone."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import pytest

from nemorun_core import Accepted, State, Submission
from nemorun_devkit.base import LawsBase
from nemorun_devkit.kit import Kit

__all__ = ["LawE9"]

SUBMITTER = """
import pickle, sys
sys.path[:0] = pickle.load(sys.stdin.buffer)
executor, job = pickle.load(sys.stdin.buffer)
backend = executor.backend().__enter__()
[(key, answer)] = list(backend.submit([job]))
print(type(answer).__name__, flush=True)
if sys.argv[1] == "stay":
    sys.stdin.read()
"""


class LawE9(LawsBase):
    """A laptop is closed, a login node restarted, a terminal lost. What was submitted was submitted."""

    def test_e9_a_job_goes_on_when_its_connection_is_closed(self, kit: Kit) -> None:
        """Closing ends what the connection owns, never a job."""
        job = kit.make(f"echo up; {kit.gate()}; exit 6")
        kit.shows(kit.take(job))
        kit.leave()
        handle = kit.adopt(job)
        assert kit.poll(handle).members[0].state is State.RUNNING
        kit.open_gate()
        assert kit.member(handle).exit_code == 6

    def test_e9_a_connection_may_be_closed_again(self, kit: Kit) -> None:
        """Whoever leaves in a hurry does it twice."""
        backend = kit.another()
        backend.close()
        backend.close()

    def test_e9_a_job_goes_on_when_its_submitter_has_ended(self, kit: Kit, pytestconfig: pytest.Config) -> None:
        """As every script does."""
        job = kit.make(f"echo up; {kit.gate()}; exit 6")
        submitter = self._submit(job, pytestconfig, "leave")
        submitter.communicate(timeout=kit.seconds)
        self._goes_on(kit, job)

    @pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"])
    def test_e9_a_job_goes_on_when_its_submitter_is_killed(
        self, kit: Kit, pytestconfig: pytest.Config, name: str
    ) -> None:
        """With all of its process group, as a terminal does it."""
        job = kit.make(f"echo up; {kit.gate()}; exit 6")
        submitter = self._submit(job, pytestconfig, "stay")
        os.killpg(submitter.pid, getattr(signal, name))
        submitter.communicate(timeout=kit.seconds)
        self._goes_on(kit, job)

    def test_e9_the_log_of_a_job_whose_submitter_was_killed_is_whole(
        self, kit: Kit, pytestconfig: pytest.Config
    ) -> None:
        """It does not go through the submitter."""
        job = kit.make(f"echo up; {kit.gate()}; echo down")
        submitter = self._submit(job, pytestconfig, "stay")
        os.killpg(submitter.pid, signal.SIGKILL)
        submitter.communicate(timeout=kit.seconds)
        handle = kit.adopt(job)
        kit.open_gate()
        kit.end(handle)
        assert kit.log(handle) == b"up\ndown\n"

    def _submit(self, job: Submission, config: pytest.Config, then: str) -> subprocess.Popen[bytes]:
        try:
            letter = pickle.dumps([str(config.rootpath), *sys.path]) + pickle.dumps((job.executors[0], job))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            pytest.skip(f"not offered: an executor that another process can load ({error})")
        os.makedirs(os.path.dirname(job.folder), mode=0o700, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", SUBMITTER, then],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(letter)
        process.stdin.flush()
        said = process.stdout.readline().decode().strip()
        if said != Accepted.__name__:
            process.kill()
            pytest.fail(f"the submitting process said {said!r}: {process.communicate()[1].decode()}")
        return process

    def _goes_on(self, kit: Kit, job: Submission) -> None:
        handle = kit.adopt(job)
        kit.until(lambda: kit.poll(handle).members[0].state is not State.PENDING, "the start")
        assert kit.poll(handle).members[0].state is State.RUNNING
        kit.open_gate()
        assert kit.member(handle).exit_code == 6
