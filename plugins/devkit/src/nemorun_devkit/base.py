"""The fixtures of the kit: the one that an author gives, and the optional ones that say how to break things."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from nemorun_core import Document, Executor, Handle, Submission
from nemorun_devkit.kit import Kit

__all__ = ["Breaking", "LawsBase"]

Breaking = Callable[[], AbstractContextManager[None]]
"""Makes a context in which something is broken."""


class LawsBase:
    """What every law's class has. An author gives `executor`; the other fixtures may be given, and skip where not.

    Attributes:
        nemorun_laws: tells the plugin that the tests of this class are laws.
        patience_seconds: how long the kit waits for anything before it says that it did not come.
    """

    nemorun_laws: ClassVar[bool] = True
    patience_seconds: ClassVar[float] = 30.0

    @pytest.fixture
    def executor(self) -> Executor:
        """Return the executor under test. To be given by the class that inherits."""
        pytest.fail("give a fixture `executor` that returns the executor under test", pytrace=False)

    @pytest.fixture
    def kit(self, executor: Executor, tmp_path: Path, shared_folder: Path | None) -> Iterator[Kit]:
        """Drive the executor's backend by hand. Not to be overridden."""
        kit = Kit(executor, tmp_path, shared_folder, self.patience_seconds)
        yield kit
        kit.close()

    @pytest.fixture
    def shared_folder(self, executor: Executor, tmp_path: Path) -> Path | None:
        """Return a folder that programs see under the same path as this machine; by default where files are shared."""
        if not executor.capabilities().shares_files:
            return None
        folder = tmp_path / "shared"
        folder.mkdir()
        return folder

    @pytest.fixture
    def scheduler_down(self) -> Breaking | None:
        """Return a maker of contexts in which the scheduler does not answer."""
        return None

    @pytest.fixture
    def answer_lost(self) -> Breaking | None:
        """Return a maker of contexts in which `submit` reaches the scheduler and its answer gets lost."""
        return None

    @pytest.fixture
    def accepted_late(self) -> Breaking | None:
        """Return a maker of contexts in which `submit` gets no answer; the scheduler takes the job when it is left."""
        return None

    @pytest.fixture
    def scheduler_full(self) -> Breaking | None:
        """Return a maker of contexts in which a quota or limit of the scheduler is reached."""
        return None

    @pytest.fixture
    def restart_scheduler(self) -> Callable[[], None] | None:
        """Return what restarts the scheduler's daemon and waits until it answers."""
        return None

    @pytest.fixture
    def expire(self) -> Callable[[Handle], None] | None:
        """Return what makes the scheduler forget a job, as its memory does after a while; programs go on."""
        return None

    @pytest.fixture
    def requeue(self) -> Callable[[Handle], None] | None:
        """Return what makes the scheduler stop a running job and start it once more."""
        return None

    @pytest.fixture
    def namesake(self) -> Callable[[Submission], Callable[[], bool]] | None:
        """Return what puts a running job of the same short name under another key on the scheduler.

        What it returns says whether that job still runs, untouched.
        """
        return None

    @pytest.fixture
    def count_queries(self) -> Callable[[], int] | None:
        """Return what says how many queries the scheduler has had."""
        return None

    @pytest.fixture
    def submitted_documents(self) -> Callable[[Submission], Sequence[Document]] | None:
        """Return what the scheduler really was given for a job, as documents to compare with `render`'s."""
        return None

    @pytest.fixture
    def kept_by_scheduler(self) -> Callable[[], Iterable[bytes]] | None:
        """Return what reads everything that the scheduler keeps at rest where no secret may be."""
        return None

    @pytest.fixture
    def refused_executor(self) -> Executor | None:
        """Return an executor of the same connection whose jobs the scheduler itself refuses."""
        return None

    @pytest.fixture
    def unhonoured_executors(self) -> Sequence[Executor] | None:
        """Return executors with options that cannot be honoured."""
        return None
