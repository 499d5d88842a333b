"""`nemorun run`: a function or a script, straight from the shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import click

from nemorun_core._cli.grammar import Command, base_dir_option
from nemorun_core.errors import Defect, UsageError

if TYPE_CHECKING:
    from nemorun_core.contracts.executor import Executor
    from nemorun_core.model.buildable import Partial
    from nemorun_core.model.task import Task

__all__ = ["run"]


@click.command(cls=Command)
@click.argument("target", metavar="FILE.py:FUNCTION|SCRIPT", type=click.Path())
@click.argument("arguments", metavar="[KEY=VALUE | -- ARG]...", nargs=-1)
@click.option("--executor", "-e", default="local", metavar="NAME[FIELD=VALUE,…]", help="Where to run; 'local'.")
@click.option("--name", default="", metavar="NAME", help="Name of the job and title of the experiment.")
@click.option("--plugin", "plugins", multiple=True, metavar="NAME[FIELD=VALUE,…]", help="Apply a plugin; repeatable.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Set a variable; repeatable.")
@click.option("--detach", "-d", is_flag=True, help="Return when it was handed over; prints the id.")
@click.option("--dryrun", is_flag=True, help="Only print what would be submitted.")
@click.option("--verify", is_flag=True, help="Like --dryrun, and ask the scheduler whether it would take it.")
@base_dir_option
def run(
    target: str,
    arguments: tuple[str, ...],
    executor: str,
    name: str,
    plugins: tuple[str, ...],
    variables: tuple[str, ...],
    detach: bool,
    dryrun: bool,
    verify: bool,
    base_dir: str | None,
) -> int:
    """Run one function or script, and wait for it.

    The exit code is 1 if it fails. Arguments of a function are given as name=value, and read by its signature;
    model.hidden=512 reaches into an argument that is a Config, dataclass or attrs object. Arguments of a script stand
    behind `--`.
    """
    from nemorun_core._cli.driving import Spoken, start
    from nemorun_core.contracts.executor import Executor
    from nemorun_core.contracts.plugin import Plugin
    from nemorun_core.model.words import make
    from nemorun_core.registry import default_registry

    registry = default_registry()
    where = make(executor, lambda wanted: registry.load("nemorun.executors", wanted))
    if not isinstance(where, Executor):
        raise Defect(f"{executor} is no executor: {type(where).__qualname__} does not derive from run.Executor.")
    for variable in variables:
        key, equals, value = variable.partition("=")
        if not equals:
            raise UsageError(f"--env {variable}: expected NAME=VALUE.", hint=f'--env {variable}="${variable}"')
        where.env_vars[key] = value
    made = [make(plugin, lambda wanted: registry.load("nemorun.plugins", wanted)) for plugin in plugins]
    task = _task(target, arguments, where)
    experiment = Spoken(name or task.default_name(), where, base_dir=base_dir)
    with experiment:
        experiment.add(task, name=name, plugins=[plugin for plugin in made if isinstance(plugin, Plugin)])
        if dryrun or verify:
            experiment.dryrun(verify=verify)
            return 0
    return start(experiment, detach=detach)


def _task(target: str, arguments: tuple[str, ...], executor: Executor) -> Task:
    import nemorun_core as nemorun

    file, colon, function = target.rpartition(":")
    if colon and file.endswith(".py"):
        from nemorun_core.model.words import assign, lacking

        task: Partial[object] = nemorun.Partial(_function(file, function))
        assign(task, arguments)
        if missing := lacking(task):
            raise UsageError(
                f"{target} needs {', '.join(missing)}.",
                hint=f"nemorun run {target} {missing[0]}=… {' '.join(arguments)}",
            )
        return task
    if not os.path.isfile(target):
        raise UsageError(
            f"there is no file {target!r}.",
            hint="Name a script, or a function as FILE.py:FUNCTION. You are in " + os.getcwd(),
        )
    if target.endswith(".py"):
        shared = executor.capabilities().shares_python
        python = executor.python or (sys.executable if shared else "python3")
        return nemorun.Script(target, args=list(arguments), entrypoint=python)
    return nemorun.Script(target, args=list(arguments))


def _function(file: str, name: str) -> Callable[..., object]:
    """Import a file under its own name, so that a job can import it again, and return a function of it."""
    import difflib
    import importlib

    if not os.path.isfile(file):
        raise UsageError(f"there is no file {file!r}.", hint=f"You are in {os.getcwd()}.")
    folder, stem = os.path.dirname(os.path.abspath(file)), os.path.basename(file).removesuffix(".py")
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(stem)
    except Exception as error:
        raise UsageError(
            f"{file} cannot be imported: {type(error).__name__}: {error}.", hint=f"Try: {sys.executable} {file}"
        ) from error
    if not os.path.samefile(getattr(module, "__file__", None) or os.devnull, file):
        raise UsageError(f"{file}: a module {stem!r} is loaded already.", hint="Give the file another name.")
    found = getattr(module, name, None)
    if callable(found):
        return cast("Callable[..., object]", found)
    known = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == stem]
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        f"{file} has no function {name!r}.",
        hint=f"Did you mean {file}:{near[0]}?" if near else f"It has: {', '.join(known) or 'none'}.",
    )
