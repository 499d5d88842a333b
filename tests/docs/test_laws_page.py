"""docs/reference/laws.md says what the kit tests."""

from __future__ import annotations

import pytest
from nemorun_devkit import ExecutorLaws

from nemorun_core import LAWS
from tests.docs.laws import PAGE, page


def test_the_page_is_what_the_kit_tests():
    assert PAGE.read_text() == page(), "python -m tests.docs.laws writes it anew"


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_there_with_its_sentence_and_its_tests(law):
    section = PAGE.read_text().partition(f"\n## {law}\n")[2].partition("\n## ")[0]
    assert LAWS[law] in section
    names = [name for name in dir(ExecutorLaws) if name.startswith(f"test_{law.lower()}_")]
    assert section.count("\n* ") == len(names) > 0
