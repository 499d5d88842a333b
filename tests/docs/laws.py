"""docs/reference/laws.md, made of the laws and the kit that tests them: `python -m tests.docs.laws` writes it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from nemorun_devkit import ExecutorLaws

from nemorun_core import LAWS

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "laws.md"
HEAD = """\
# The laws

Every backend keeps them, and the kit of [nemorun-devkit](../../plugins/devkit/README.md) tests each;
[Test a backend](../how-to/test-a-backend.md) says how. Below are each law, its reason, and what is tested.

This page is made of the kit by `python -m tests.docs.laws`.
"""


def page() -> str:
    """Return the whole page."""
    classes = {one.__name__: one for one in ExecutorLaws.__mro__}
    return HEAD + "".join(section(law, sentence, classes[f"Law{law}"]) for law, sentence in LAWS.items())


def section(law: str, sentence: str, tests: type) -> str:
    """Return what the page says of one law."""
    rows = []
    for name, test in vars(tests).items():
        if name.startswith(f"test_{law.lower()}_"):
            claim = name.removeprefix(f"test_{law.lower()}_").replace("_", " ")
            rows.append(f"* {claim}{nightly(test)}: {first_line(test)}\n")
    return f"\n## {law}\n\n**{sentence}**\n\n{paragraph(tests)}\n\n{''.join(rows)}"


def paragraph(documented: object) -> str:
    """Return a docstring as one line. Raises ValueError where there is none."""
    text = inspect.getdoc(documented)
    if not text:
        raise ValueError(f"{documented} has no docstring")
    return re.sub(r"\s+", " ", text)


def first_line(documented: object) -> str:
    return paragraph(documented) and str(inspect.getdoc(documented)).splitlines()[0]


def nightly(test: object) -> str:
    return " (nightly)" if "nightly" in [mark.name for mark in getattr(test, "pytestmark", [])] else ""


if __name__ == "__main__":
    PAGE.write_text(page())
