"""docs/reference/executors.md, made of the executors' own fields: `python -m tests.docs.executors` writes it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs

import nemorun_core as run

__all__ = ["EXECUTORS", "PAGE", "attributes", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "executors.md"
EXECUTORS: tuple[type[run.Executor], ...] = (run.LocalExecutor, run.DockerExecutor, run.SlurmExecutor)
HEAD = """\
# Executors

Where and how to run. All have the fields of `Executor`, each its own besides; `nemorun plugins show docker` prints
them with their types.

This page is made of the classes by `python -m tests.docs.executors`.
"""


def page() -> str:
    """Return the whole page."""
    return HEAD + "".join(section(one) for one in (run.Executor, *EXECUTORS))


def section(executor: type[run.Executor]) -> str:
    """Return what the page says of one class: its docstring, what it can do, and a row for each field of its own."""
    described = attributes(executor)
    inherited = set() if executor is run.Executor else {field.name for field in attrs.fields(run.Executor)}
    rows = [
        f"| `{field.name}` | {default(field)} | {described.get(field.name) or same_as_the_option(executor)} |\n"
        for field in attrs.fields(executor)
        if field.name not in inherited
    ]
    able = f"\n{abilities(executor)}\n" if executor is not run.Executor else ""
    table = "| field | default | |\n|---|---|---|\n" + "".join(rows)
    return f"\n## {executor.__name__}\n\n{text_of(executor)}\n{able}\n{table}"


def text_of(executor: type) -> str:
    """Return the paragraphs of a docstring before its list of attributes, each as one line."""
    text = (inspect.getdoc(executor) or "").partition("\nAttributes:")[0].strip()
    return "\n\n".join(re.sub(r"\s+", " ", paragraph) for paragraph in text.split("\n\n"))


def attributes(executor: type) -> dict[str, str]:
    """Return what a docstring says of each attribute, by its name."""
    listed = (inspect.getdoc(executor) or "").partition("\nAttributes:\n")[2]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", "\n" + listed):
        names, colon, text = entry.strip().partition(": ")
        if colon:
            found.update(dict.fromkeys(names.split(", "), re.sub(r"\s+", " ", text).replace("|", "\\|")))
    return found


def same_as_the_option(executor: type) -> str:
    """Return what is said of a field without a description, which only Slurm's options may lack."""
    if executor is not run.SlurmExecutor:
        raise ValueError(f"a field of {executor.__name__} has no description")
    return "the option of sbatch(1)"


def default(field: attrs.Attribute[object]) -> str:
    """Return a field's default as it is written in code."""
    if field.default is attrs.NOTHING:
        return "required"
    value = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]
    return f"`{value!r}`"


def abilities(executor: type[run.Executor]) -> str:
    """Return what the backend can do, as the executor with default fields declares it."""
    required = {field.name: "x" for field in attrs.fields(executor) if field.default is attrs.NOTHING}
    able = executor(**required).capabilities()
    words = [
        f"`{field.name}={value!r}`"
        for field in attrs.fields(run.Capabilities)
        if (value := getattr(able, field.name)) not in (False, None, frozenset())
    ]
    return f"Capabilities with default fields: {', '.join(words)}."


if __name__ == "__main__":
    PAGE.write_text(page())
