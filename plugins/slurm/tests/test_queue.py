"""The answers of squeue and sacct are shared: by how old they may be, and never a failed one as an answer."""

from __future__ import annotations

import threading
import time

import pytest
from nemorun_slurm.commands import Commands, Result
from nemorun_slurm.parse import SACCT_FORMAT, SQUEUE_FORMAT
from nemorun_slurm.queue import Queue

from nemorun_core import TransientError

ROW = "\x1f".join(
    ["7", "7", "RUNNING", "None", "0", "0", *["2026-11-27T01:00:00"] * 2, "N/A", "0", "N/A", "train-x", "n1", "\n"]
)
DISABLED = "Slurm accounting storage is disabled"


class Told(Commands):
    """Answers as it was told to, and notes what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def run(self, argv, **options):
        self.asked.append(list(argv))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _call(self, argv, environment, without):
        raise NotImplementedError

    def _checked(self, name, result):
        return result


@pytest.fixture(autouse=True)
def shared_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def queue(commands, identity="cluster"):
    return Queue(commands, lambda: identity)


def names(snapshot):
    """Return the name of each row that an answer holds."""
    return [row.name for name in snapshot._records for row in snapshot.rows(name)]


GOOD = Result(0, ROW.encode(), "")
DOWN = Result(1, b"", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")


def test_an_answer_that_is_young_enough_is_not_asked_for_again():
    commands = Told(GOOD)
    first, second = queue(commands), queue(commands)
    assert names(first.jobs(time.time())) == ["train-x"]
    assert names(second.jobs(time.time() - 60)) == ["train-x"]
    assert commands.asked == [["squeue", *SQUEUE_FORMAT]]


def test_an_answer_that_is_too_old_is_asked_for_again():
    commands = Told(GOOD)
    asking = queue(commands)
    asking.jobs(time.time())
    asking.jobs(time.time())
    assert len(commands.asked) == 2


def test_another_cluster_has_answers_of_its_own():
    commands = Told(GOOD)
    queue(commands).jobs(0.0)
    queue(commands, "another").jobs(0.0)
    assert len(commands.asked) == 2


def test_an_answer_from_the_future_is_not_believed(monkeypatch):
    """A clock that was set back would make it last for ever."""
    commands = Told(GOOD)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 1000)
    queue(commands).jobs(0.0)
    monkeypatch.setattr(time, "time", real)
    queue(commands).jobs(0.0)
    assert len(commands.asked) == 2


@pytest.mark.parametrize("answer", [DOWN, TransientError("squeue did not answer within 60 s.")])
def test_a_failed_question_is_no_answer_to_the_next(answer):
    commands = Told(answer, GOOD)
    asking = queue(commands)
    with pytest.raises(TransientError):
        asking.jobs(0.0)
    assert names(asking.jobs(0.0)) == ["train-x"]


def test_a_failed_question_fails_all_who_waited_for_it():
    """Or each of twenty would wait for its own time-out, one after the other."""
    asked, go_on, errors = threading.Event(), threading.Event(), []

    class Slow(Told):
        def run(self, argv, **options):
            asked.set()
            go_on.wait(10)
            return super().run(argv, **options)

    commands = Slow(DOWN)

    def ask():
        try:
            queue(commands).jobs(time.time() - 60)
        except TransientError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert asked.wait(10)
    wait_for_all(threads)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 5
    assert len(commands.asked) < 5


def wait_for_all(threads):
    """Wait until each thread has come to wait: all but one hold the lock's file open by then."""
    deadline = time.monotonic() + 5
    while sum(thread.is_alive() for thread in threads) < len(threads) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_sacct_is_asked_once_for_all_that_anybody_wants():
    commands = Told(Result(0, b"", ""))
    first, second = queue(commands), queue(commands)
    first.ended(["3", "4"], 0.0)
    second.ended(["5"], 0.0)
    first.ended(["3", "5"], 0.0)
    assert commands.asked == [["sacct", *SACCT_FORMAT, "--jobs", ids] for ids in ("3,4", "3,4,5")]


def test_the_configuration_is_asked_for_once_by_all():
    commands = Told(Result(0, b"ClusterName = alps\n", ""))
    assert [queue(commands).config(time.time() - 15) for _ in range(3)] == ["ClusterName = alps\n"] * 3
    assert commands.asked == [["scontrol", "show", "config"]]


def test_where_nothing_is_accounted_sacct_has_no_answer_and_no_error():
    assert queue(Told(Result(1, b"", DISABLED))).ended(["3"], 0.0) is None


def test_where_slurmdbd_is_down_the_question_fails():
    with pytest.raises(TransientError, match="Connection refused"):
        queue(Told(Result(1, b"", "sacct: error: slurm_persist_conn_open: Connection refused"))).ended(["3"], 0.0)


def test_a_folder_that_somebody_else_put_there_is_not_used(tmp_path, monkeypatch):
    import os

    folder = tmp_path / f"nemorun-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    asking = queue(Told(GOOD))
    asking.jobs(0.0)
    asking.close()
    assert list(folder.iterdir()) == []
