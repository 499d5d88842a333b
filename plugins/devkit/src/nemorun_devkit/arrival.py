"""E10, E11 and E16: what arrives at the program, what is kept of it, and what is refused before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs
import pytest

from nemorun_core import Executor, Experiment, Script, Secret, UsageError
from nemorun_devkit.base import LawsBase
from nemorun_devkit.kit import Kit, offered

__all__ = ["LawE10", "LawE11", "LawE16"]

TEXTS = {
    "spaces": "  a  b  ",
    "single quotes": "it's 'quoted'",
    "double quotes": 'a "b" c',
    "newlines": "a\nb\n\nc\n",
    "dollar": "$HOME ${HOME} $(id) `id` $$",
    "backslash": "a\\b\\\\c\\n",
    "unicode": "é ☃ 漢字 🎉",
    "tab and return": "a\tb\rc",
    "glob": "* ? [a] ~ {a,b}",
    "operators": "a;b&c|d>e<f#g!h",
    "percent": "%s %d %% %n",
    "dash": "--flag=-x",
    "equals": "A=B=C",
    "json": '{"a": [1, "x y"], "b": null}',
    "template": "{{ a }} {% b %} @c@ <d>",
    "long": "0123456789" * 2000,
}
ECHO = ("sh", "-c", 'for argument; do printf "%s\\0" "$argument"; done', "sh")


class LawE10(LawsBase):
    """A program's arguments are its meaning. Between `add` and the program lie scripts, manifests, shells and command
    lines, and each has its own idea of quotes."""

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    def test_e10_an_argument_arrives_exactly(self, kit: Kit, text: str) -> None:
        """Byte by byte."""
        assert kit.output([*ECHO, text]) == text.encode() + b"\0"

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    def test_e10_a_variable_arrives_exactly(self, kit: Kit, text: str) -> None:
        """Its value, byte by byte."""
        handle = kit.start('printf "%s." "$VALUE"', environment={"VALUE": text})
        kit.end(handle)
        assert kit.log(handle) == text.encode() + b"."

    @pytest.mark.parametrize("arguments", [[""], ["", ""], ["a", "", "b"], [" ", ""], []])
    def test_e10_empty_arguments_arrive(self, kit: Kit, arguments: list[str]) -> None:
        """An argument too few moves all others."""
        assert kit.output([*ECHO, *arguments]) == b"".join(text.encode() + b"\0" for text in arguments)

    def test_e10_all_arguments_arrive_in_order(self, kit: Kit) -> None:
        """All of them at once."""
        texts = list(TEXTS.values())
        assert kit.output([*ECHO, *texts]) == b"".join(text.encode() + b"\0" for text in texts)

    def test_e10_a_program_is_started_without_a_shell_of_its_own(self, kit: Kit) -> None:
        """What looks like a command line is a name."""
        assert kit.output(["printf", "%s", "a  b;c"]) == b"a  b;c"

    def test_e10_a_script_of_many_lines_arrives(self, kit: Kit) -> None:
        """Here-documents and comments and all."""
        script = "# comment\ncat <<'END'\n$HOME \"a\"\n  b\nEND\nif true; then\n\techo 'c'\nfi\n"
        assert kit.output(script) == b'$HOME "a"\n  b\nc\n'

    def test_e10_an_empty_variable_is_set(self, kit: Kit) -> None:
        """It is not the same as none."""
        handle = kit.start('echo "${EMPTY-unset}"', environment={"EMPTY": ""})
        kit.end(handle)
        assert kit.log(handle) == b"\n"

    def test_e10_names_of_variables_are_kept_as_given(self, kit: Kit) -> None:
        """In case, and though a script in between may use them itself."""
        names = ["lower", "Mixed_1", "base", "code", "cwd", "name", "IFS_", "PS4", "_x"]
        handle = kit.start(["env"], environment=dict.fromkeys(names, "mine"))
        kit.end(handle)
        seen = dict(line.partition("=")[::2] for line in kit.log(handle).decode("utf-8", "replace").split("\n"))
        assert {name: seen.get(name) for name in names} == dict.fromkeys(names, "mine")

    def test_e10_the_cores_variables_arrive(self, kit: Kit) -> None:
        """Launchers read them."""
        handle = kit.start('echo "$NEMORUN_EXPERIMENT_ID $NEMORUN_JOB $NEMORUN_ATTEMPT $NEMORUN_MEMBER"', name="a job")
        kit.end(handle)
        assert kit.log(handle) == b"laws_1 a job 0 0\n"

    @pytest.mark.parametrize("name", ["plain", "with space", "quote's $HOME", "é☃", "-dash"])
    def test_e10_the_working_directory_arrives(self, kit: Kit, name: str) -> None:
        """Whatever it is called."""
        folder = kit.shared / name
        folder.mkdir()
        assert kit.output("pwd -P", cwd=folder) == str(folder.resolve()).encode() + b"\n"

    def test_e10_there_is_no_input(self, kit: Kit) -> None:
        """A program that reads gets an end of file, and does not wait for ever."""
        assert kit.output("cat; echo over") == b"over\n"

    def test_e10_files_are_there_before_the_program_starts(self, kit: Kit) -> None:
        """What belongs to a task is written into the job's folder."""
        if not kit.able.shares_files:
            pytest.skip("capability missing: shares_files")
        job = kit.make("exit 0")
        [member] = job.members
        content = b"a\0b\xff\n"
        program = ("cat", f"{job.folder}/0.data")
        job = attrs.evolve(job, members=(attrs.evolve(member, argv=program, files={"0.data": content}),))
        handle = kit.take(job)
        kit.end(handle)
        assert kit.log(handle) == content


# Put together here: a text that holds it, such as a diff kept with an experiment, would be taken for a leak.
CANARY = "-".join(("canary", "5f3a9c", "secret"))
REVERSED = "tr a-z b-za"


def _shifted(text: str) -> bytes:
    """Return what `REVERSED` makes of a text, so that no log of ours holds it."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return text.translate(str.maketrans(letters, letters[1:] + letters[0])).encode()


class LawE11(LawsBase):
    """What is written down is copied: into backups, bug reports and other people's dashboards. A token belongs to the
    program alone, and the launcher's environment to the launcher."""

    @pytest.fixture
    def secret(self, monkeypatch: pytest.MonkeyPatch) -> Secret:
        monkeypatch.setenv("LAWS_SOURCE", CANARY)
        return Secret.from_env("LAWS_SOURCE")

    def test_e11_a_secret_arrives(self, kit: Kit, secret: Secret) -> None:
        """Under the name that was declared."""
        handle = kit.start(f'printf %s "$TOKEN" | {REVERSED}', environment={"TOKEN": secret})
        kit.end(handle)
        assert kit.log(handle) == _shifted(CANARY)

    def test_e11_a_secret_from_a_file_arrives(self, kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Without the newline at its end."""
        path = tmp_path_factory.mktemp("source") / "token"
        path.write_text(CANARY + "\n")
        handle = kit.start(f'printf %s "$TOKEN" | {REVERSED}', environment={"TOKEN": Secret.from_file(path)})
        kit.end(handle)
        assert kit.log(handle) == _shifted(CANARY)

    def test_e11_a_rendering_holds_no_secret(self, kit: Kit, secret: Secret) -> None:
        """A dry run is shown to others."""
        documents = kit.backend.render(kit.make("exit 0", environment={"TOKEN": secret}))
        assert CANARY not in "".join(document.name + document.text for document in documents)

    def test_e11_no_file_holds_a_secret(
        self, kit: Kit, secret: Secret, kept_by_scheduler: Callable[[], Iterable[bytes]] | None
    ) -> None:
        """Neither while the job runs nor afterwards."""
        handle = kit.start(f"echo up; {kit.gate()}", environment={"TOKEN": secret})
        kit.shows(handle)
        assert self._holding(kit, CANARY, kept_by_scheduler) == []
        kit.open_gate()
        kit.end(handle)
        assert self._holding(kit, CANARY, kept_by_scheduler) == []
        kit.backend.release([handle])
        assert self._holding(kit, CANARY, kept_by_scheduler) == []

    def test_e11_no_command_line_holds_a_secret(self, kit: Kit, secret: Secret) -> None:
        """Every user of a machine can read them, ps(1)."""
        handle = kit.start(f"echo up; {kit.gate()}", environment={"TOKEN": secret})
        kit.shows(handle)
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                lines.append(path.read_bytes())
        kit.open_gate()
        kit.end(handle)
        assert not [line for line in lines if CANARY.encode() in line]

    def test_e11_a_secret_that_is_missing_is_named_and_nothing_starts(
        self, kit: Kit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before a GPU waits for a program that cannot log in."""
        monkeypatch.delenv("LAWS_ABSENT", raising=False)
        environment = {"TOKEN": Secret.from_env("LAWS_ABSENT")}
        job = kit.make("echo ran >>runs", cwd=kit.shared, environment=environment)
        assert "LAWS_ABSENT" in kit.refusal(job)
        assert kit.find(job) == {}
        assert kit.lines("runs") == []

    def test_e11_the_callers_environment_is_not_recorded(
        self, kit: Kit, monkeypatch: pytest.MonkeyPatch, kept_by_scheduler: Callable[[], Iterable[bytes]] | None
    ) -> None:
        """Only what was declared is."""
        monkeypatch.setenv("LAWS_PRIVATE", CANARY)
        job = kit.make(f"echo up; {kit.gate()}")
        text = "".join(document.text for document in kit.backend.render(job))
        assert "LAWS_PRIVATE" not in text
        assert CANARY not in text
        handle = kit.take(job)
        kit.shows(handle)
        assert self._holding(kit, CANARY, kept_by_scheduler) == []
        assert self._holding(kit, "LAWS_PRIVATE", kept_by_scheduler) == []
        kit.open_gate()
        kit.end(handle)
        assert self._holding(kit, CANARY, kept_by_scheduler) == []

    def test_e11_an_experiment_keeps_no_secret(self, kit: Kit, secret: Secret) -> None:
        """In none of its records, and on no screen."""
        with Experiment("laws", executor=kit.executor, base_dir=kit.folder / "home", log_level="ERROR") as experiment:
            experiment.add(Script(inline='test -n "$TOKEN"', env={"TOKEN": secret}), name="a")
            experiment.run(check=True)
        assert self._holding(kit, CANARY, None) == []

    def _holding(self, kit: Kit, text: str, kept: Callable[[], Iterable[bytes]] | None) -> list[str]:
        wanted = text.encode()
        found = [str(path) for path in kit.folder.rglob("*") if path.is_file() and wanted in path.read_bytes()]
        found.extend("the scheduler" for content in (kept() if kept else ()) if wanted in content)
        return found


class LawE16(LawsBase):
    """An option that is silently dropped is a promise that is broken hours later, on somebody's bill."""

    def test_e16_the_executor_itself_is_fit(self, kit: Kit) -> None:
        """What the author gave can be honoured."""
        kit.executor.check()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("grace_seconds", -1.0),
            ("grace_seconds", float("nan")),
            ("lost_after_seconds", float("inf")),
            ("placement_timeout_seconds", -1.0),
            ("timeout_seconds", -1.0),
            ("retries", -1),
            ("retry_on", frozenset({"bad luck"})),
            ("env_vars", {"A=B": "x"}),
            ("env_vars", {"": "x"}),
        ],
    )
    def test_e16_a_value_that_makes_no_sense_is_refused(self, kit: Kit, field: str, value: object) -> None:
        """Before anything is created."""
        self._refused(kit, kit.options(**{field: value}))

    @pytest.mark.parametrize(
        ("capability", "field", "value"),
        [("timeout", "timeout_seconds", 60.0), ("separate_stderr", "separate_stderr", True)],
    )
    def test_e16_an_option_is_taken_where_its_capability_is_declared_and_refused_where_not(
        self, kit: Kit, capability: str, field: str, value: object
    ) -> None:
        """One of both, and never dropped."""
        executor = kit.options(**{field: value})
        if getattr(kit.able, capability):
            executor.check()
        else:
            self._refused(kit, executor)

    def test_e16_what_this_executor_cannot_honour_is_refused(
        self, kit: Kit, unhonoured_executors: Sequence[Executor] | None
    ) -> None:
        """Its own options as well."""
        offered(unhonoured_executors, "unhonoured_executors")
        assert unhonoured_executors
        for executor in unhonoured_executors:
            self._refused(kit, executor)

    def test_e16_capabilities_are_told_without_a_connection(self, kit: Kit) -> None:
        """They are asked for at `add`, offline, and do not change."""
        assert kit.executor.clone().capabilities() == kit.able

    def test_e16_equal_executors_share_a_connection(self, kit: Kit) -> None:
        """A thousand jobs have one."""
        assert kit.executor.clone() == kit.executor
        assert hash(kit.executor.clone().connection()) == hash(kit.executor.connection())
        assert kit.executor.clone().connection() == kit.executor.connection()

    def _refused(self, kit: Kit, executor: Executor) -> None:
        home = kit.folder / "home"
        with Experiment("laws", base_dir=home, log_level="ERROR") as experiment:
            with pytest.raises(UsageError) as error:
                experiment.add(Script(inline="exit 0"), executor=executor, name="a")
            assert str(error.value)
        assert [path for path in home.rglob("*") if path.is_file()] == []
