"""Every code block of the documentation runs. docs/decisions/0002-documentation-blocks.md says why this is ours.

A page becomes one script that runs from top to bottom as a reader would: each block stands on the line that it has in
the page, so a traceback names the page's own lines. `python` blocks share one namespace, `sh` and `bash` blocks must
exit 0, and the output of `console` blocks is compared. A block that cannot run says why in a comment directly above it:

    <!-- not run: needs a cluster -->

What a block needs and a reader does not goes into a comment that starts with `<!-- python` on a line of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSOLE = Path(__file__).with_name("console.py")
PAGES = [page for folder in ("*.md", "docs/**/*.md", "plugins/*/*.md") for page in sorted(ROOT.glob(folder))]

BLOCK = re.compile(
    r"""^(?P<indent>[ \t]*)(?:```(?P<language>[^`\n]*)\n(?P<body>.*?)^[ \t]*```[ \t]*$
                             |<!--[ ]python\n(?P<hidden>.*?)^[ \t]*-->)""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
NOT_RUN = re.compile(r"<!-- not run:(?P<reason>[^>]*)-->\s*\Z")
SHOWN_ONLY = {"diff", "ini", "json", "markdown", "text", "toml", "yaml"}


def script(page: str) -> str:
    """Turn the text of a page into a Python script with the same line numbers; ValueError says what the page lacks."""
    lines = [""] * (page.count("\n") + 1)
    for block in BLOCK.finditer(page):
        language, body = block["language"], textwrap.dedent(block["body"] or block["hidden"] or "")
        first = page.count("\n", 0, block.start()) + 1
        if mark := NOT_RUN.search(page, 0, block.start()):
            if not mark["reason"].strip():
                raise ValueError(f"line {first}: 'not run' needs a reason")
        elif language is None or language == "python":
            code = body.splitlines()
            lines[first : first + len(code)] = code
        elif language in ("sh", "bash"):
            lines[first] = f"__import__('subprocess').run(['bash', '-euo', 'pipefail', '-c', {body!r}], check=True)"
        elif language == "console":
            command = [sys.executable, str(CONSOLE)]
            lines[first] = f"__import__('subprocess').run({command!r}, input={body!r}, text=True, check=True)"
        elif language not in SHOWN_ONLY:
            raise ValueError(f"line {first}: block of language {language!r}; see SHOWN_ONLY for others")
    return "\n".join(lines)


def run_page(page: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's blocks in the empty folder, with the commands of this environment on PATH."""
    file = folder / "page.py"
    file.write_text(script(page))
    folder.joinpath("work").mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, str(file)],
        cwd=folder / "work",
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_page_runs(page, tmp_path):
    done = run_page(page.read_text(), tmp_path)
    assert done.returncode == 0, f"{page.relative_to(ROOT)} (page.py has its line numbers):\n{done.stdout}"


def test_blocks_share_a_namespace_and_see_hidden_ones(tmp_path):
    page = "<!-- python\na = 1\n-->\n\n- item\n\n  ```python\n  b = a + 1\n  ```\n\n```python\nassert b == 2\n```\n"
    assert run_page(page, tmp_path).returncode == 0


def test_console_output_is_compared_with_wildcards(tmp_path):
    page = "```console\n$ echo one; echo 17 two\none\n... two\n$ echo three \\\n>   four\nthree four\n```\n"
    done = run_page(page, tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "page",
    [
        "```python\n\n1 / 0\n```\n",
        "```sh\nfalse\ntrue\n```\n",
        "```bash\nfalse | true\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ true\nmissing\n```\n",
    ],
)
def test_a_block_that_does_not_work_fails_with_its_line(page, tmp_path):
    done = run_page(page, tmp_path)
    assert done.returncode != 0
    assert re.search(r'page.py", line [23]', done.stdout)


@pytest.mark.parametrize("page", ["<!-- not run: -->\n```python\n```\n", "```\nx\n```\n", "```shell\nx\n```\n"])
def test_a_block_without_reason_or_known_language_is_refused(page):
    with pytest.raises(ValueError, match=r"line [12]"):
        script(page)


def test_a_block_with_a_reason_is_not_run():
    assert not script("<!-- not run: needs a cluster -->\n\n```sh\nfalse\n```\n").strip()
