"""The backend of docs/examples/spool is as small as docs/how-to/test-a-backend.md says, and is what that page shows.

That it keeps the laws is tested by `nox -s wheels`, as its author would: from wheels, outside this repository.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.repository.test_sizes import code_lines

ROOT = Path(__file__).parents[2]
SPOOL = ROOT / "docs" / "examples" / "spool"
PAGE = (ROOT / "docs" / "how-to" / "test-a-backend.md").read_text()
BACKEND = (SPOOL / "src" / "nemorun_spool" / "__init__.py").read_text()


def shown(what: str) -> str:
    """Return the blocks below the comments `<!-- what -->`, joined as they are in the file."""
    return "\n\n".join(re.findall(rf"<!-- {what} -->\n\n```python\n(.*?)```\n", PAGE, re.DOTALL))


def test_the_backend_has_less_than_120_lines_of_code():
    assert code_lines(BACKEND) < 120


def test_the_page_shows_the_backend_whole():
    assert shown("the backend") == BACKEND


def test_the_page_shows_tests_as_they_are():
    tests = (SPOOL / "tests" / "test_spool.py").read_text()
    assert "class TestSpool" in shown("not run: a part of the spool's tests")
    for block in re.findall(r"<!-- not run: a part of the spool's tests -->\n\n```python\n(.*?)```\n", PAGE, re.DOTALL):
        assert block in tests


def test_the_page_shows_the_entry_point():
    [block] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert block in (SPOOL / "pyproject.toml").read_text()
