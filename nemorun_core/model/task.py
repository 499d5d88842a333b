"""What to run: the base of every kind of task, and Script."""

import os
import re
import shlex
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import attrs

from nemorun_core.errors import UsageError
from nemorun_core.model.environment import check_environment, check_text
from nemorun_core.model.plain import plain_copy
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.secret import Secret

__all__ = ["Command", "Place", "Script", "Task"]

# One argument of a program may take 128 KiB on Linux (MAX_ARG_STRLEN, execve(2)); the rest is left for the quoting of
# those who pass it on.
_INLINE_LIMIT_BYTES = 120 * 1024
_SHELLS = frozenset({"ash", "bash", "dash", "ksh", "sh", "zsh"})
_MINUS_E = frozenset({"Rscript", "julia", "lua", "node", "perl", "ruby"})

Self = TypeVar("Self", bound="Task")


class Place(NamedTuple):
    """Where one member will run, as its command must see it.

    Attributes:
        folder: the job's folder, absolute, as seen there.
        member: number of the member in its job, from 0.
        python: the interpreter there.
        runner: path of the standalone runner there.
        objects: folder there of the pickles sent by value, each named by its digest.
        support: folder there that holds the package `cloudpickle`; empty if nothing is sent by value.
        sys_path: the launcher's import path, absolute, where it shares the file system; else empty.
        bundle: folders of the job's bundle that are imported from before all others.
    """

    folder: str
    member: int
    python: str
    runner: str
    objects: str
    support: str = ""
    sys_path: tuple[str, ...] = ()
    bundle: tuple[str, ...] = ()


class Command(NamedTuple):
    """How one member is started.

    Attributes:
        argv: the program and its arguments.
        env: variables to add to the environment.
        files: name in the job's folder to content, to be written before the start.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str | Secret] = MappingProxyType({})
    files: Mapping[str, bytes] = MappingProxyType({})


class Task:
    """Something to run, as a plain value. Plugins add kinds by deriving attrs classes from this one."""

    __slots__ = ()

    def default_name(self) -> str:
        """Name the job that runs this, where its user gives no name. Any text; the caller makes it unique."""
        return type(self).__name__

    def clone(self: Self) -> Self:
        """Copy the task, so that changes to either do not show in the other."""
        import copy

        return copy.deepcopy(self)

    def command(self, place: Place) -> Command:
        """Say how to start this task at a place. Pure: nothing is written or run."""
        raise NotImplementedError(f"{type(self).__qualname__}.command")

    def objects(self) -> Mapping[str, bytes]:
        """Pickles to be stored beside the task's record: digest to content. Most tasks have none."""
        return {}

    def to_record(self) -> dict[str, object]:
        """Write the task as JSON: objects, arrays, strings, numbers, booleans and null.

        Raises:
            UsageError: something in it cannot be written and read back equal; with its path.
        """
        from nemorun_core.model.convert import converter

        record: dict[str, object] = converter.unstructure(self)
        return record

    @classmethod
    def from_record(cls: type[Self], record: Mapping[str, object]) -> Self:
        """Read what `to_record` wrote. Imports and runs nothing that the record names."""
        from nemorun_core.model.convert import structure

        return structure(record, cls)


def _path(value: str | os.PathLike[str] | None) -> str | None:
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise UsageError(f"path is {path!r}, and must be text", hint="Use os.fsdecode(path).")
    return path


def _arguments(values: object) -> list[str]:
    if isinstance(values, str) or not isinstance(values, (list, tuple)):
        raise UsageError(f"args must be a list, found {values!r}", hint="Write args=['one', 'two'].")
    for index, value in enumerate(values):
        if isinstance(value, (bool, Enum)) or not isinstance(value, (str, int, float, os.PathLike)):
            raise UsageError(
                f"args[{index}] must be text, a number or a path, found {value!r}", hint="Write it as a string."
            )
    texts = [os.fspath(value) if isinstance(value, os.PathLike) else str(value) for value in values]
    return [check_text(text, f"args[{index}]") for index, text in enumerate(texts)]


def _environment(values: Mapping[str, str | Secret]) -> dict[str, str | Secret]:
    check_environment(values, "Script.env")
    return dict(values)


def _words(entrypoint: str) -> list[str]:
    return [entrypoint] if entrypoint.isalnum() else shlex.split(entrypoint)


def _written(value: object) -> object:
    """Return a field's value as JSON; the converter is loaded for what does not stand for itself, such as a Secret."""
    plain = plain_copy(value)
    if plain is None and value is not None:
        from nemorun_core.model.convert import converter

        return converter.unstructure(value)
    return plain


def _metadata(values: Mapping[str, object]) -> dict[str, object]:
    return dict(values)


@attrs.define(repr=False)
class Script(Task):
    """A program to run: a file, or text given inline.

    Args:
        path: the file, as the interpreter will see it; kept as given. Either this or `inline`.
        inline: the program's text, at most 120 KiB.
        args: the program's arguments: text, numbers or paths.
        env: variables to add to the environment; a value may be a Secret.
        entrypoint: the interpreter, with its options if need be (`"bash -e"`); empty to execute the file itself.
        m: run `path` as a module, `python -m path`.
        metadata: facts to keep with the task. Never read by nemorun.

    Raises:
        UsageError: neither or both of path and inline, or a value that no program can be passed.
    """

    path: str | None = attrs.field(default=None, converter=_path)
    inline: str | None = attrs.field(default=None, kw_only=True)
    args: list[str] = attrs.field(factory=list, kw_only=True, converter=_arguments)
    env: dict[str, str | Secret] = attrs.field(factory=dict, kw_only=True, converter=_environment)
    entrypoint: str = attrs.field(default="bash", kw_only=True)
    m: bool = attrs.field(default=False, kw_only=True)
    metadata: dict[str, object] = attrs.field(factory=dict, kw_only=True, converter=_metadata)

    def __attrs_post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.path is not None and self.inline is not None:
            raise UsageError("a Script has a path or inline text, found both", hint="Leave one of them out.")
        if not str(self.path or "") and not (self.inline or "").strip():
            raise UsageError(
                "a Script needs a path or inline text, found neither", hint="Write run.Script('train.sh')."
            )
        check_text(str(self.path), "path")
        check_text(self.entrypoint, "entrypoint")
        if self.inline is not None:
            size = len(check_text(self.inline, "inline").encode("utf-8", "surrogateescape"))
            if size > _INLINE_LIMIT_BYTES:
                raise UsageError(
                    f"inline text may have {_INLINE_LIMIT_BYTES} bytes (120 KiB), found {size}",
                    hint="Put it in a file: run.Script('script.sh').",
                )
            if self.m or not self.entrypoint.strip():
                wrong = "m=True" if self.m else "an empty entrypoint"
                raise UsageError(f"{wrong} needs a path, found inline text", hint="Use path, or name an entrypoint.")
        try:
            _words(self.entrypoint)
        except ValueError as error:
            raise UsageError(f"entrypoint {self.entrypoint!r}: {error}", hint="Close the quotes.") from None
        _arguments(self.args)
        _environment(self.env)

    def clone(self) -> "Script":
        """Copy the script, so that changes to either do not show in the other."""
        import copy

        made = copy.copy(self)
        made.args, made.env = self.args, self.env  # copied by their converters
        made.metadata = copy.deepcopy(self.metadata) if self.metadata else {}
        return made

    def default_name(self) -> str:
        """Name it after its file, or after the first ten characters of its text."""
        if self.inline is not None:
            return re.sub(r"[^A-Za-z0-9]+", "_", self.inline.strip()[:10])
        return os.path.basename(str(self.path).rstrip("/")) or "script"

    def command(self, place: Place) -> Command:
        """Start the interpreter with the file or the text. The same at every place."""
        self._check()
        words = _words(self.entrypoint)
        if self.inline is not None:
            names = [os.path.basename(word) for word in words if not word.startswith("-")]
            program = next((name for name in names if name != "env"), words[0])
            words += ["-e" if program in _MINUS_E else "-c", self.inline]
            if program in _SHELLS:
                words.append(program)  # the text's own $0
        elif self.m:
            words = ["python"] if self.entrypoint == "bash" else words
            words += ["-m", str(self.path)]
        else:
            path = str(self.path)
            words.append(path if words or "/" in path else f"./{path}")
        return Command(argv=(*words, *_arguments(self.args)), env=dict(self.env))

    def to_record(self) -> dict[str, object]:
        """Write what differs from the defaults. Raises UsageError for metadata that JSON cannot hold, with its path."""
        self._check()
        record: dict[str, object] = {name: _written(value) for name, value in self._given() if name != "metadata"}
        if self.metadata:
            from nemorun_core.model.values import encode_plain

            record["metadata"] = encode_plain(self.metadata, "metadata")
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> "Script":
        """Read what `to_record` wrote. Raises MalformedRecord for anything else."""
        texts = (record.get(name, "") for name in ("path", "inline", "entrypoint"))
        if all(type(text) is str for text in texts) and record.keys() <= {"path", "inline", "entrypoint"}:
            try:
                return cls(**record)  # type: ignore[arg-type]
            except UsageError as error:
                raise MalformedRecord(f"{error} @ $") from None
        from nemorun_core.model.convert import structure

        script = structure(record, cls)
        if script.metadata:
            from nemorun_core.model.decoding import decode

            script.metadata = decode({"nodes": [], "root": script.metadata})  # type: ignore[assignment]
        return script

    def _given(self) -> list[tuple[str, object]]:
        found: list[tuple[str, object]] = []
        for field in attrs.fields(type(self)):
            default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != default:
                found.append((field.name, value))
        return found

    def __repr__(self) -> str:
        shown = [repr(value) if name == "path" else f"{name}={value!r}" for name, value in self._given()]
        return f"Script({', '.join(shown)})"
