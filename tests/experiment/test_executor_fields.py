"""An executor whose fields have wrong types is refused by `add`, before anything is created."""

from __future__ import annotations

import pytest

from nemorun_core import Experiment, LocalExecutor, Script, UsageError


@pytest.mark.parametrize("fields", [{"python": 3}, {"outputs": "*.pt"}, {"separate_stderr": "no"}, {"retries": True}])
def test_a_field_of_a_wrong_type_is_refused_by_add(fields, nemorun_home):
    with Experiment("typed") as experiment:
        with pytest.raises(UsageError, match=next(iter(fields))):
            experiment.add(Script(inline="true"), LocalExecutor(**fields))
        assert experiment.jobs == []
