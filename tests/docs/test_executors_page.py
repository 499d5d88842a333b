"""docs/reference/executors.md says what the executors have."""

from __future__ import annotations

import attrs
import pytest

import nemorun_core as run
from tests.docs.executors import EXECUTORS, PAGE, attributes, page


def test_the_page_is_what_the_classes_have():
    assert PAGE.read_text() == page(), "python -m tests.docs.executors writes it anew"


@pytest.mark.parametrize("executor", [run.Executor, *EXECUTORS], ids=lambda executor: executor.__name__)
def test_what_a_docstring_describes_is_a_field(executor):
    assert set(attributes(executor)) <= {field.name for field in attrs.fields(executor)}
