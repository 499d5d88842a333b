"""E8: what a program writes can be read, all of it and nothing else."""

from __future__ import annotations

import pytest

from nemorun_core import base_path
from nemorun_devkit.base import LawsBase
from nemorun_devkit.kit import Kit

__all__ = ["LawE8"]


def _printf(content: bytes) -> str:
    """Return a command that writes these bytes, in POSIX octal escapes."""
    return f"printf '{''.join(f'{chr(92)}{byte:03o}' for byte in content)}'"


CONTENTS = {
    "nothing": b"",
    "one line": b"a line\n",
    "no newline at the end": b"a line",
    "every byte": bytes(range(256)),
    "NUL": b"a\0b\0\0c\n",
    "carriage returns": b"10%\r20%\r100%\r\n",
    "not UTF-8": b"\xff\xfe\x80 caf\xe9\n",
    "unicode": "é ☃ 漢字 🎉\n".encode(),
    "blank lines": b"\n\n a \n\n",
    "form feed and escapes": b"\x1b[31mred\x1b[0m\f\v\n",
    "looks like a record": b"2026-01-01T00:00:00.000Z stdout F a line\n",
}


class LawE8(LawsBase):
    """The log is often all that is left of a run. A line that is missing is the one that said why."""

    @pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
    def test_e8_a_log_is_what_was_written(self, kit: Kit, content: bytes) -> None:
        """Byte by byte."""
        assert kit.output(_printf(content) if content else "exit 0") == content

    @pytest.mark.parametrize("size", [65535, 65536, 65537, 300_000])
    def test_e8_a_long_line_is_whole(self, kit: Kit, size: int) -> None:
        """Pipes, engines and readers have buffers, and each has an end."""
        found = kit.output(f"head -c {size} /dev/zero | tr '\\0' x")
        assert (len(found), set(found)) == (size, {ord("x")})

    def test_e8_many_lines_are_whole_and_in_order(self, kit: Kit) -> None:
        """About a megabyte."""
        found = kit.output("awk 'BEGIN { for (i = 0; i < 50000; i++) print \"line number\", i }'")
        assert found == b"".join(b"line number %d\n" % number for number in range(50000))

    @pytest.mark.nightly
    def test_e8_a_log_of_200_megabytes_is_whole(self, kit: Kit) -> None:
        """As a program leaves it that prints in its inner loop."""
        assert len(kit.output("head -c 200000000 /dev/zero")) == 200_000_000

    def test_e8_lines_can_be_read_while_the_program_runs(self, kit: Kit) -> None:
        """That is what following a log means."""
        handle = kit.start(f"echo up; {kit.gate('a')}; echo more; {kit.gate('b')}")
        kit.shows(handle)
        assert kit.log(handle) == b"up\n"
        kit.open_gate("a")
        kit.shows(handle, b"up\nmore\n")
        kit.open_gate("b")
        kit.end(handle)
        assert kit.log(handle) == b"up\nmore\n"

    def test_e8_the_last_words_of_a_killed_program_are_kept(self, kit: Kit) -> None:
        """They say why."""
        handle = kit.start("echo first; printf last; kill -KILL $$")
        kit.end(handle)
        assert kit.log(handle) == b"first\nlast"

    def test_e8_the_last_words_of_a_cancelled_program_are_kept(self, kit: Kit) -> None:
        """It may say where its checkpoint is."""
        handle = kit.start("trap 'echo saved; exit 1' TERM; echo up; while :; do sleep 0.02; done")
        kit.shows(handle)
        kit.backend.cancel([handle])
        kit.end(handle)
        assert kit.log(handle).startswith(b"up\n")  # a shell may tell of its child
        assert kit.log(handle).endswith(b"saved\n")

    def test_e8_standard_error_joins_the_log_in_order(self, kit: Kit) -> None:
        """Where it was not asked to be apart."""
        assert kit.output("echo 1; echo 2 >&2; echo 3; echo 4 >&2") == b"1\n2\n3\n4\n"

    def test_e8_standard_error_is_apart_where_that_was_asked(self, kit: Kit) -> None:
        """Each stream by itself, byte by byte."""
        if not kit.able.separate_stderr:
            pytest.skip("capability missing: separate_stderr")
        handle = kit.start("echo 1; echo 2 >&2; echo 3; echo 4 >&2", executor=kit.options(separate_stderr=True))
        kit.end(handle)
        assert (kit.log(handle), kit.log(handle, stream="err")) == (b"1\n3\n", b"2\n4\n")

    def test_e8_each_member_has_a_log_of_its_own(self, kit: Kit) -> None:
        """Nobody can take apart what was mixed."""
        if kit.able.group is None:
            pytest.skip("capability missing: group")
        handle = kit.start(*(f"echo member {number}" for number in range(3)))
        kit.end(handle)
        assert [kit.log(handle, number) for number in range(3)] == [b"member %d\n" % number for number in range(3)]

    def test_e8_each_attempt_has_a_log_of_its_own(self, kit: Kit) -> None:
        """The first may be what one looks for."""
        handles = [kit.take(kit.make(f"echo attempt {number}", name="a", attempt=number)) for number in range(2)]
        for handle in handles:
            kit.end(handle)
        assert [kit.log(handle) for handle in handles] == [b"attempt 0\n", b"attempt 1\n"]

    def test_e8_a_log_can_be_read_by_the_next_connection(self, kit: Kit) -> None:
        """After the end, and after whoever saw it."""
        job = kit.make("echo a; echo b")
        kit.end(kit.take(job))
        handle = kit.adopt(job)
        kit.end(handle)
        assert kit.log(handle) == b"a\nb\n"

    def test_e8_a_log_is_written_while_nobody_looks(self, kit: Kit) -> None:
        """What comes between two connections comes too."""
        job = kit.make(f"echo up; {kit.gate()}; echo alone; touch over", cwd=kit.shared)
        kit.shows(kit.take(job))
        kit.leave()
        kit.open_gate()
        kit.until((kit.shared / "over").exists, "the end")
        handle = kit.adopt(job)
        kit.end(handle)
        assert kit.log(handle) == b"up\nalone\n"

    def test_e8_a_log_stays_when_the_job_is_released(self, kit: Kit) -> None:
        """Only the user deletes it."""
        if not kit.able.shares_files:
            pytest.skip("capability missing: shares_files")
        job = kit.make("echo a; echo b")
        handle = kit.take(job)
        kit.end(handle)
        kit.backend.release([handle])
        with open(f"{base_path(job.folder, 0, 0, 0)}.out", "rb") as stream:
            assert stream.read() == b"a\nb\n"

    @pytest.mark.parametrize("limit", [1, 7, 64, 4096])
    def test_e8_a_log_can_be_read_in_pieces(self, kit: Kit, limit: int) -> None:
        """By offset: none is left out and none comes twice."""
        self._reads(kit)
        handle = kit.start("awk 'BEGIN { for (i = 0; i < 40; i++) print \"line\", i }'")
        kit.end(handle)
        assert kit.read(handle, 0, "out", limit) == b"".join(b"line %d\n" % number for number in range(40))

    def test_e8_a_piece_can_be_read_again(self, kit: Kit) -> None:
        """Who wrote it down last may have died doing so."""
        self._reads(kit)
        handle = kit.start("printf 0123456789")
        kit.end(handle)
        pieces = [(0, 4, b"0123"), (4, 4, b"4567"), (4, 4, b"4567"), (0, 2, b"01"), (9, 9, b"9"), (10, 9, b"")]
        for offset, limit, wanted in pieces:
            assert kit.backend.read_log(handle, 0, "out", offset, limit, 0) == wanted

    def test_e8_nothing_new_is_empty(self, kit: Kit) -> None:
        """At the end, and past it."""
        self._reads(kit)
        handle = kit.start("echo a")
        kit.end(handle)
        assert [kit.backend.read_log(handle, 0, "out", offset, 10, 0) for offset in (2, 3, 1000)] == [b""] * 3

    def _reads(self, kit: Kit) -> None:
        if kit.able.shares_files:
            pytest.skip("declared: shares_files, so that streams are files and `read_log` is not called")
