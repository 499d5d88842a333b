"""A backend to drive by hand: submissions made of shell scripts, and waiting for what the kernel tells."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import pytest
from nemorun_local import LocalExecutor
from nemorun_local.backend import LocalBackend

from nemorun_core import Accepted, Answer, Key, Member, MemberObservation, Observation, Submission, base_path

SUPPORT = str(files("nemorun_core.engine").joinpath("shim.sh").parent)  # type: ignore[attr-defined]
NONCE = os.urandom(8).hex()  # of this run: another run of these tests must not be taken for it
SECONDS = 20.0


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {SECONDS:g} s"
        time.sleep(0.005)


class Jobs:
    """Makes submissions and drives one backend as the engine does: wait, then poll what changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handles: list[str] = []
        self.backend = LocalBackend()
        self._numbers = itertools.count()
        # Unique in the world, as in a real experiment: jobs of tests that run beside these are not ours.
        self._nonce = secrets.token_hex(8)

    def make(
        self,
        *scripts: str | Sequence[str],
        name: str = "",
        cwd: str | os.PathLike[str] | None = None,
        environment: Mapping[str, object] | None = None,
        executor: LocalExecutor | None = None,
        attempt: int = 0,
    ) -> Submission:
        name = name or f"job{next(self._numbers)}"
        argvs = [("sh", "-c", script) if isinstance(script, str) else tuple(script) for script in scripts]
        return Submission(
            key=Key(NONCE, name, attempt),
            members=tuple(
                Member(argv=argv, environment=environment or {}, cwd=str(cwd or self.folder))  # type: ignore[arg-type]
                for argv in argvs
            ),
            executors=(executor or LocalExecutor(),) * len(argvs),
            folder=str(self.folder / name),
            support=SUPPORT,
        )

    def answer(self, job: Submission) -> Answer:
        [(key, answer)] = list(self.backend.submit([job]))
        assert key == job.key
        if isinstance(answer, Accepted):
            self.handles.append(answer.handle)
        return answer

    def start(self, *scripts: str | Sequence[str], **options: object) -> str:
        answer = self.answer(self.make(*scripts, **options))  # type: ignore[arg-type]
        assert isinstance(answer, Accepted), answer
        return answer.handle

    def poll(self, handle: str) -> Observation:
        return self.backend.poll([handle])[handle]

    def end(self, handle: str) -> Observation:
        """Wait for a job's end, woken by the kernel."""
        deadline = time.monotonic() + SECONDS
        while not (seen := self.poll(handle)).is_over:
            assert time.monotonic() < deadline, f"{handle} did not end within {SECONDS:g} s: {seen}"
            self.backend.wait([handle], 1.0)
        return seen

    def run(self, *scripts: str | Sequence[str], **options: object) -> MemberObservation:
        """Run a job of one member to its end."""
        [member] = self.end(self.start(*scripts, **options)).members
        return member

    def base(self, name: str, member: int = 0) -> str:
        return base_path(str(self.folder / name), 0, 0, member)

    def log(self, name: str, member: int = 0, stream: str = "out") -> str:
        path = Path(f"{self.base(name, member)}.{stream}")
        return path.read_text() if path.exists() else ""

    def shows(self, name: str, text: str, member: int = 0) -> None:
        """Wait until a job's log holds a text."""
        wait_until(lambda: text in self.log(name, member), f"{text!r} of {name}")

    def reopen(self) -> None:
        """Drop the backend, as a driver that ends does, and open another."""
        self.backend.close()
        self.backend = LocalBackend()

    def close(self) -> None:
        """End what still runs."""
        open_ones = [
            handle for handle, seen in self.backend.poll(self.handles).items() if seen.members and not seen.is_over
        ]
        self.backend.kill(open_ones)
        for handle in open_ones:
            self.end(handle)
        self.backend.close()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path)
    yield jobs
    jobs.close()
