"""E13 and E14: what is submitted, and under which name."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nemorun_core import Document, Rejected, Submission
from nemorun_devkit.base import Breaking, LawsBase
from nemorun_devkit.kit import Kit, offered

__all__ = ["LawE13", "LawE14"]


class LawE13(LawsBase):
    """A dry run that shows something else than what is then run is worse than none."""

    def test_e13_a_rendering_creates_nothing(self, kit: Kit) -> None:
        """Neither on disk nor on the scheduler."""
        job = kit.make("exit 0")
        before = sorted(kit.folder.rglob("*"))
        kit.backend.render(job)
        assert sorted(kit.folder.rglob("*")) == before
        assert not Path(job.folder).exists()
        assert kit.find(job) == {}

    def test_e13_a_rendering_can_be_repeated(self, kit: Kit) -> None:
        """The same job gives the same text, before and after it was submitted."""
        job = kit.make("exit 0")
        before = list(kit.backend.render(job))
        assert list(kit.backend.render(job)) == before
        kit.end(kit.take(job))
        assert list(kit.backend.render(job)) == before
        kit.reopen()
        assert list(kit.backend.render(job)) == before

    def test_e13_a_rendering_shows_program_and_variables(self, kit: Kit) -> None:
        """Plain words stand in it as they are."""
        job = kit.make(["echo", "argument-1", "argument-2"], environment={"DECLARED": "value-3"})
        text = "\n".join(document.text for document in kit.backend.render(job))
        for word in ("echo", "argument-1", "argument-2", "DECLARED", "value-3"):
            assert word in text

    def test_e13_a_rendering_has_named_documents(self, kit: Kit) -> None:
        """Each is shown under its name."""
        documents = kit.backend.render(kit.make("exit 0"))
        assert documents
        assert all(document.name and document.text for document in documents)

    def test_e13_a_rendering_shows_every_member(self, kit: Kit) -> None:
        """A group is submitted as one."""
        if kit.able.group is None:
            pytest.skip("capability missing: group")
        job = kit.make(*(["echo", f"member-{number}"] for number in range(3)))
        text = "\n".join(document.text for document in kit.backend.render(job))
        assert [number for number in range(3) if f"member-{number}" in text] == [0, 1, 2]

    def test_e13_renderings_of_two_jobs_differ(self, kit: Kit) -> None:
        """At least in the key."""
        first, second = (kit.make("exit 0", name=name) for name in ("a", "b"))
        assert list(kit.backend.render(first)) != list(kit.backend.render(second))

    def test_e13_a_rendering_works_offline(self, kit: Kit, scheduler_down: Breaking | None) -> None:
        """A dry run may be done on a train."""
        offered(scheduler_down, "scheduler_down")
        assert scheduler_down is not None
        job = kit.make("exit 0")
        with scheduler_down():
            offline = list(kit.backend.render(job))
        assert offline == list(kit.backend.render(job))

    @pytest.mark.parametrize("argument", ["plain", "a 'b' \"c\" $HOME\n\\d é", ""])
    def test_e13_the_scheduler_is_given_what_was_rendered(
        self,
        kit: Kit,
        submitted_documents: Callable[[Submission], Sequence[Document]] | None,
        argument: str,
    ) -> None:
        """To the letter."""
        offered(submitted_documents, "submitted_documents")
        assert submitted_documents is not None
        job = kit.make(["echo", argument], environment={"VALUE": argument})
        rendered = list(kit.backend.render(job))
        kit.end(kit.take(job))
        assert list(submitted_documents(job)) == rendered


LONG = "n" * 120


class LawE14(LawsBase):
    """A short name is for people; two experiments, or two users, may come to the same. Whoever cancels by it cancels
    somebody else's work."""

    def test_e14_a_job_of_another_experiment_is_not_found(self, kit: Kit) -> None:
        """The same job and attempt, under another nonce."""
        kit.end(kit.take(kit.make("exit 0", name="a")))
        other = kit.make("exit 0", name="a", nonce=secrets.token_hex(8))
        assert kit.find(other) == {}
        kit.reopen()
        assert kit.find(other) == {}

    def test_e14_another_attempt_is_not_found(self, kit: Kit) -> None:
        """It was not submitted, whatever became of the first."""
        kit.end(kit.take(kit.make("exit 0", name="a")))
        kit.reopen()
        assert kit.find(kit.make("exit 0", name="a", attempt=1)) == {}

    @pytest.mark.parametrize(("there", "other"), [("train", "train2"), ("a/b", "a.b"), ("Job", "job"), ("é", "e")])
    def test_e14_a_job_of_a_name_that_looks_alike_is_not_found(self, kit: Kit, there: str, other: str) -> None:
        """Schedulers' names allow fewer characters, and some do not tell case."""
        kit.end(kit.take(kit.make("exit 0", name=there)))
        kit.reopen()
        assert kit.find(kit.make("exit 0", name=other)) == {}

    def test_e14_long_names_with_one_beginning_are_two_jobs(self, kit: Kit) -> None:
        """Schedulers' names are short."""
        codes = {}
        for code, ending in ((3, "x"), (4, "y")):
            codes[code] = kit.take(kit.make(f"exit {code}", name=LONG + ending))
        assert codes[3] != codes[4]
        assert [kit.member(codes[code]).exit_code for code in codes] == [3, 4]

    @pytest.mark.parametrize("name", ["a job", "ÜNICODE ☃", "../up", "-dash", "$HOME;x", "'quote\""])
    def test_e14_any_name_of_a_job_can_be_found_again(self, kit: Kit, name: str) -> None:
        """A job's id is free text."""
        job = kit.make("exit 3", name=name)
        handle = kit.take(job)
        kit.end(handle)
        assert kit.adopt(job) == handle

    def test_e14_a_cancel_leaves_the_job_of_another_experiment_alone(self, kit: Kit) -> None:
        """Both are called the same."""
        mine = kit.take(kit.make("echo up; sleep 60", name="a"))
        other = kit.take(kit.make(kit.lasting(), name="a", nonce=secrets.token_hex(8)))
        assert mine != other
        for handle in (mine, other):
            kit.shows(handle)
        kit.backend.cancel([mine])
        kit.end(mine)
        kit.unhurt(other)

    def test_e14_a_release_leaves_the_others_alone(self, kit: Kit) -> None:
        """Only what was named is removed."""
        mine = kit.take(kit.make("exit 3", name="a"))
        other = kit.take(kit.make(kit.lasting(), name="a", nonce=secrets.token_hex(8)))
        kit.shows(other)
        kit.end(mine)
        kit.backend.release([mine])
        kit.unhurt(other)

    def test_e14_a_name_that_is_taken_is_rejected(
        self, kit: Kit, namesake: Callable[[Submission], Callable[[], bool]] | None
    ) -> None:
        """And whoever has it stays as he is."""
        job = kit.make("echo ran >>runs", cwd=kit.shared)
        runs = self._put(namesake, job)
        answer = kit.answer(job)
        assert isinstance(answer, Rejected), f"a name that another key has was answered {answer}"
        assert runs()
        assert kit.lines("runs") == []

    def test_e14_a_namesake_is_not_found(
        self, kit: Kit, namesake: Callable[[Submission], Callable[[], bool]] | None
    ) -> None:
        """By no connection."""
        job = kit.make("exit 0")
        runs = self._put(namesake, job)
        assert kit.find(job) == {}
        kit.reopen()
        assert kit.find(job) == {}
        assert runs()

    def test_e14_a_namesake_is_not_cancelled(
        self, kit: Kit, namesake: Callable[[Submission], Callable[[], bool]] | None
    ) -> None:
        """Our job is gone from the scheduler, and somebody else has its name: a handle alone is no title."""
        job = kit.make("exit 0")
        runs = self._put(namesake, job)
        kit.answer(job)
        handle = job.key.slug()
        for call in (kit.backend.cancel, kit.backend.kill, kit.backend.release):
            call([handle])
        kit.end(kit.start("exit 0"))
        assert runs()

    def _put(self, namesake: Callable[[Submission], Callable[[], bool]] | None, job: Submission) -> Callable[[], bool]:
        offered(namesake, "namesake")
        assert namesake is not None
        runs = namesake(job)
        assert runs()
        return runs
