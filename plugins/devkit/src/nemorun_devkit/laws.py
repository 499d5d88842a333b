"""`ExecutorLaws`: all laws in one class, to be inherited by whoever writes an executor."""

from __future__ import annotations

from nemorun_devkit.arrival import LawE10, LawE11, LawE16
from nemorun_devkit.ends import LawE5, LawE7
from nemorun_devkit.groups import LawE15
from nemorun_devkit.logs import LawE8
from nemorun_devkit.names import LawE13, LawE14
from nemorun_devkit.outliving import LawE9
from nemorun_devkit.starts import LawE1, LawE2
from nemorun_devkit.states import LawE3, LawE4, LawE6, LawE12

__all__ = ["ExecutorLaws"]


class ExecutorLaws(
    LawE1,
    LawE2,
    LawE3,
    LawE4,
    LawE5,
    LawE6,
    LawE7,
    LawE8,
    LawE9,
    LawE10,
    LawE11,
    LawE12,
    LawE13,
    LawE14,
    LawE15,
    LawE16,
):
    """The laws that every backend keeps, as tests. Inherit it and give one fixture:

        class TestMyExecutor(ExecutorLaws):
            @pytest.fixture
            def executor(self):
                return MyExecutor()

    The other fixtures of `LawsBase` say how to break what the author alone can break; what is not given is skipped as
    "not offered" and stands in the table at the end of the run.
    """
