"""E15: groups start as one, and their members meet."""

from __future__ import annotations

import sys

import pytest

from nemorun_core import Experiment, Script, State, UsageError
from nemorun_devkit.base import LawsBase
from nemorun_devkit.kit import Kit

__all__ = ["LawE15"]

MEET = """
import os, socket, sys, time
address = (os.environ["NEMORUN_MEMBER_0_HOST"], int(os.environ["NEMORUN_HEAD_PORT"]))
if os.environ["NEMORUN_MEMBER"] == "0":
    server = socket.create_server(("", address[1]))
    server.settimeout(20)
    for _ in range(int(sys.argv[1]) - 1):
        peer, _ = server.accept()
        peer.sendall(b"hello")
        peer.close()
else:
    deadline = time.monotonic() + 20
    while True:
        try:
            peer = socket.create_connection(address, 5)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    sys.exit(0 if peer.recv(5) == b"hello" else 1)
"""


class LawE15(LawsBase):
    """Members of a group wait for each other. If half of them run, they wait for ever and pay for it."""

    def test_e15_a_group_is_refused_where_none_can_be_run(self, kit: Kit) -> None:
        """Before anything is created; where groups are declared, one is taken."""
        home = kit.folder / "home"
        tasks = [Script(inline="exit 0"), Script(inline="exit 0")]
        with Experiment("laws", executor=kit.executor, base_dir=home, log_level="ERROR") as experiment:
            if kit.able.group is None:
                with pytest.raises(UsageError):
                    experiment.add(tasks, name="a")
            else:
                experiment.add(tasks, name="a")
        assert [path for path in home.rglob("*") if path.is_file()] == []

    def test_e15_every_member_runs(self, kit: Kit) -> None:
        """Each once, and each as itself."""
        self._groups(kit)
        kit.end(kit.start(*(f"echo {number} >>runs" for number in range(3)), cwd=kit.shared))
        assert sorted(kit.lines("runs")) == ["0", "1", "2"]

    def test_e15_members_are_told_in_order(self, kit: Kit) -> None:
        """Member 0 leads, so that it matters which one it is."""
        self._groups(kit)
        handle = kit.start("sleep 0.1; exit 3", "exit 4", "sleep 0.05; exit 5")
        for seen in kit.watch(handle):
            assert len(seen.members) in (0, 3)
        assert [member.exit_code for member in kit.poll(handle).members] == [3, 4, 5]

    def test_e15_members_run_at_the_same_time(self, kit: Kit) -> None:
        """Each waits until all are there."""
        self._groups(kit)
        waits = "; ".join(kit.gate(f"m{number}") for number in range(3))
        meets = f"{waits}; test -e m0 -a -e m1 -a -e m2"
        handle = kit.start(*(f"touch m{number}; {meets}" for number in range(3)), cwd=kit.shared)
        assert {member.state for member in kit.end(handle).members} == {State.SUCCEEDED}

    def test_e15_eight_members_run_at_the_same_time(self, kit: Kit) -> None:
        """More than a machine has processors."""
        self._groups(kit)
        waits = "; ".join(kit.gate(f"m{number}") for number in range(8))
        handle = kit.start(*(f"touch m{number}; {waits}" for number in range(8)), cwd=kit.shared)
        assert [member.state for member in kit.end(handle).members] == [State.SUCCEEDED] * 8

    def test_e15_a_failed_member_does_not_change_the_others(self, kit: Kit) -> None:
        """What it means for the group is for the engine to say."""
        self._groups(kit)
        handle = kit.start("exit 3", f"{kit.gate()}; exit 0")
        kit.until(lambda: (seen := kit.poll(handle)).members and seen.members[0].state.is_final, "the first end")
        assert kit.poll(handle).members[1].state in (State.PENDING, State.RUNNING)
        kit.open_gate()
        assert [member.state for member in kit.end(handle).members] == [State.FAILED, State.SUCCEEDED]

    @pytest.mark.parametrize("failed", [0, 1, 2])
    def test_e15_the_failed_member_is_the_one_that_failed(self, kit: Kit, failed: int) -> None:
        """A group whose failure is laid at another's door is looked into in vain."""
        self._groups(kit)
        seen = kit.end(kit.start(*(f"exit {7 if number == failed else 0}" for number in range(3))))
        assert [member.exit_code for member in seen.members] == [7 if number == failed else 0 for number in range(3)]

    def test_e15_each_member_has_an_environment_of_its_own(self, kit: Kit) -> None:
        """It knows which one it is."""
        self._groups(kit)
        handle = kit.start(*["echo $NEMORUN_MEMBER"] * 3)
        kit.end(handle)
        assert [kit.log(handle, number) for number in range(3)] == [b"0\n", b"1\n", b"2\n"]

    def test_e15_every_member_knows_the_names_of_all(self, kit: Kit) -> None:
        """And all know the same."""
        self._groups(kit)
        names = " ".join(f"$NEMORUN_MEMBER_{number}_HOST" for number in range(3))
        handle = kit.start(*[f"echo {names}"] * 3)
        kit.end(handle)
        logs = {kit.log(handle, number) for number in range(3)}
        assert len(logs) == 1
        assert len(logs.pop().split()) == 3

    def test_e15_all_members_are_given_one_meeting_point(self, kit: Kit) -> None:
        """A host and a port."""
        self._groups(kit)
        handle = kit.start(*["echo $NEMORUN_HEAD_HOST $NEMORUN_HEAD_PORT"] * 3)
        kit.end(handle)
        logs = {kit.log(handle, number) for number in range(3)}
        assert len(logs) == 1
        host, port = logs.pop().split()
        assert host
        assert 0 < int(port) < 65536

    @pytest.mark.parametrize("count", [2, 4])
    def test_e15_members_reach_each_other_by_name(self, kit: Kit, count: int) -> None:
        """A name that does not lead anywhere is none."""
        self._groups(kit)
        python = kit.executor.python or (sys.executable if kit.able.shares_python else "python3")
        handle = kit.start(*[(python, "-c", MEET, str(count))] * count)
        seen = kit.end(handle)
        assert [member.exit_code for member in seen.members] == [0] * count, kit.log(handle, 1)

    def test_e15_a_group_has_one_handle_and_is_found_whole(self, kit: Kit) -> None:
        """By the next connection."""
        self._groups(kit)
        job = kit.make(f"echo up; {kit.gate()}; exit 3", f"echo up; {kit.gate()}; exit 4")
        handle = kit.take(job)
        for number in range(2):
            kit.shows(handle, member=number)
        assert kit.adopt(job) == handle
        kit.open_gate()
        assert [member.exit_code for member in kit.end(handle).members] == [3, 4]

    def test_e15_a_group_that_cannot_start_as_one_starts_none(self, kit: Kit) -> None:
        """All are placed or none: a member that cannot be started keeps the others back."""
        self._groups(kit)
        job = kit.make("echo ran >>runs", ("sh", "-c", "exit 0", "a\0b"), cwd=kit.shared)
        kit.refusal(job)
        kit.settle()
        assert kit.lines("runs") == []

    def _groups(self, kit: Kit) -> None:
        if kit.able.group is None:
            pytest.skip("capability missing: group; refusal is tested")
