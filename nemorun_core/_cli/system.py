"""`nemorun plugins`, `config`, `doctor` and `completion`: what is installed, what is set, and what is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from nemorun_core._cli.grammar import Command, Group, base_dir_option, json_option
from nemorun_core._cli.lookup import emit, home_of
from nemorun_core.errors import Defect, NemorunError, StoreError, TransientError, UsageError

__all__ = ["completion", "config", "config_show", "doctor", "plugins", "plugins_list", "plugins_show"]

Finding = dict[str, object]
T = TypeVar("T")

_CODES: tuple[tuple[type[NemorunError], int], ...] = ((TransientError, 3), (Defect, 4), (StoreError, 5))


@click.group(cls=Group, path="plugins", commands_of={"list": "system:plugins_list", "show": "system:plugins_show"})
def plugins() -> None:
    """See which plugins are installed."""


@click.group(cls=Group, path="config", commands_of={"show": "system:config_show"})
def config() -> None:
    """See what nemorun was told by its environment."""


@click.command("list", cls=Command)
@json_option
def plugins_list(as_json: bool) -> None:
    """List what installed plugins bring.

    JSON: `[{"group", "name", "object", "distribution", "version"}]`.
    """
    rows = list(_installed())
    if as_json:
        emit(rows)
        return
    if not rows:
        click.echo("No plugin is installed.\n  pip install nemorun-local", err=True)
    widths = [max((len(row[key]) for row in rows), default=0) for key in ("group", "name")]
    for row in rows:
        click.echo(f"{row['group']:{widths[0]}}  {row['name']:{widths[1]}}  {row['distribution']} {row['version']}")


@click.command("show", cls=Command)
@click.argument("name")
@json_option
def plugins_show(name: str, as_json: bool) -> None:
    """Show what a plugin brings, with its fields.

    NAME is one of `plugins list`, a class, or a distribution.

    JSON: `[{"group", "name", "object", "distribution", "version", "summary", "fields": [{"name", "type",
    "default"}]}]`.
    """
    chosen = [row for row in _installed() if name in (row["name"], row["distribution"], row["object"].split(":")[-1])]
    if not chosen:
        known = ", ".join(sorted({row["name"] for row in _installed()})) or "none"
        raise UsageError(f"no plugin {name!r} is installed (installed: {known}).", hint=f"pip install nemorun-{name}")
    found = [row | _described(row) for row in chosen]
    if as_json:
        emit(found)
        return
    for row in found:
        click.echo(f"{row['name']} ({row['group']}): {row['object']}, of {row['distribution']} {row['version']}")
        if row["summary"]:
            click.echo(f"  {row['summary']}")
        fields = row["fields"]
        assert isinstance(fields, list)
        for field in fields:
            click.echo(f"  {field['name']}: {field['type']}{' = ' + field['default'] if field['default'] else ''}")


def _installed() -> Iterator[dict[str, str]]:
    from nemorun_core.registry import GROUPS, default_registry

    for group in (*GROUPS, "nemorun.hooks", "nemorun.commands"):
        for found in default_registry().found(group):
            distribution, _, version = found.distribution.partition(" ")
            yield {
                "group": group.removeprefix("nemorun."),
                "name": found.name,
                "object": found.value,
                "distribution": distribution,
                "version": version,
            }


def _described(row: dict[str, str]) -> dict[str, object]:
    import importlib
    import inspect

    import attrs

    module, _, name = row["object"].partition(":")
    try:
        value: object = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            value = getattr(value, part)
    except Exception as error:  # whatever a plugin's import raises is the plugin's
        raise Defect(
            f"{row['object']} of {row['distribution']} {row['version']} cannot be loaded: "
            f"{type(error).__name__}: {error}.",
            hint=f"Repair or remove it: pip install --force-reinstall {row['distribution']}",
            distribution=row["distribution"],
        ) from error
    fields = attrs.fields(value) if isinstance(value, type) and attrs.has(value) else ()
    return {
        "summary": (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " "),
        "fields": [
            {"name": field.name, "type": _type_name(field.type), "default": _default(field.default)} for field in fields
        ],
    }


def _type_name(kind: object) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__name__", "") if isinstance(kind, type) else str(kind)
    return text.replace("nemorun_core.model.secret.", "") or "object"


def _default(value: object) -> str:
    import attrs

    if value is attrs.NOTHING:
        return ""
    factory = getattr(value, "factory", None)
    return repr(factory()) if factory is not None and not getattr(value, "takes_self", False) else repr(value)


@click.command("show", cls=Command)
@json_option
@base_dir_option
def config_show(as_json: bool, base_dir: str | None) -> None:
    """Show version, folder of the records, variables.

    JSON: `{"version", "python", "home", "home_from", "environment": {name: value}}`.
    """
    from nemorun_core import __version__

    chosen = "--base-dir" if base_dir else "NEMORUN_HOME" if os.environ.get("NEMORUN_HOME") else "default"
    names = [name for name in sorted(os.environ) if name.startswith("NEMORUN_") or name == "NO_COLOR"]
    shown: dict[str, object] = {
        "version": __version__,
        "python": sys.executable,
        "home": os.path.dirname(home_of(base_dir).path),
        "home_from": chosen,
        "environment": {name: os.environ[name] for name in names},
    }
    if as_json:
        emit(shown)
        return
    click.echo(f"version  {shown['version']}\npython   {shown['python']}\nhome     {shown['home']} ({chosen})")
    for name in names:
        click.echo(f"{name}={os.environ[name]}")


@click.command(cls=Command)
@json_option
@base_dir_option
def doctor(as_json: bool, base_dir: str | None) -> int:
    """Check the records, the plugins and the schedulers.

    Says whether the folder can be written, each plugin loads, and the scheduler of each executor answers. The exit code
    is 0 or that of the worst finding: 3 a scheduler, 4 a plugin, 5 the folder.

    JSON: `[{"what", "ok", "code", "found", "next"}]`.
    """
    findings = list(_findings(base_dir))
    if as_json:
        emit(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding['ok'] else 'FAIL'}  {finding['what']}: {finding['found']}")
            if finding["next"]:
                click.echo(f"      {finding['next']}")
    return max(int(str(finding["code"])) for finding in findings)


def _findings(base_dir: str | None) -> Iterator[Finding]:
    yield _checked("records", _home_found, home_of(base_dir).path)
    rows = list(_installed())
    for row in rows:
        what = f"{row['group']} {row['name']} of {row['distribution']} {row['version']}"
        yield _checked(what, _executor_found if row["group"] == "executors" else _plugin_found, row)
    if not any(row["group"] == "executors" for row in rows):
        yield _finding("executors", 2, "none is installed", "pip install nemorun-local")


def _finding(what: str, code: int, found: str, following: str = "") -> Finding:
    return {"what": what, "ok": code == 0, "code": code, "found": found, "next": following}


def _checked(what: str, check: Callable[[T], str], subject: T) -> Finding:
    try:
        return _finding(what, 0, check(subject))
    except NemorunError as error:
        code = next((number for kind, number in _CODES if isinstance(error, kind)), 2)
        return _finding(what, code, error.message, error.hint)
    except Exception as error:  # a plugin's own failure is a finding
        return _finding(what, 4, f"{type(error).__name__}: {error}", "Report it to the plugin's author.")


def _home_found(path: str) -> str:
    """Write, lock and remove a file where records go; say on what file system that is."""
    import tempfile

    from nemorun_core.store.files import guarded, make_folder
    from nemorun_core.store.lock import Lock

    make_folder(path)
    with guarded("write into", path), tempfile.TemporaryDirectory(dir=path) as folder:
        lock = Lock(os.path.join(folder, "lock"))
        lock.acquire()
        lock.release()
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    return f"{path} can be written and locked, on {_file_system(path)}, {free / 2**30:.1f} GiB free"


def _file_system(path: str) -> str:
    """Return the type of the file system that holds a path, by proc(5)."""
    best, kind = "", "an unknown file system"
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                point, found = line.split()[1:3]
                inside = os.path.realpath(path) == point or os.path.realpath(path).startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, found
    except OSError:
        pass
    return kind


def _plugin_found(row: dict[str, str]) -> str:
    _described(row)
    return "can be loaded"


def _executor_found(row: dict[str, str]) -> str:
    from nemorun_core.contracts.executor import Executor
    from nemorun_core.registry import default_registry

    cls = default_registry().load("nemorun.executors", row["name"])
    try:
        executor = cls()
    except TypeError as error:  # it has fields that must be given
        return f"can be loaded; its scheduler was not asked: {error}"
    if not isinstance(executor, Executor):
        raise Defect(f"{cls.__qualname__} does not derive from run.Executor.", hint="Report it to its author.")
    executor.check()
    with executor.backend() as backend:
        backend.poll([])
    return "can be loaded, and its scheduler answers"


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what completes words in a shell.

    Commands, options, experiment ids and job names. For bash, add to ~/.bashrc: eval "$(nemorun completion bash)"; for
    zsh the same in ~/.zshrc; for fish, put it into ~/.config/fish/completions/nemorun.fish.
    """
    from click.shell_completion import get_completion_class

    from nemorun_core._cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "nemorun", "_NEMORUN_COMPLETE").source())
