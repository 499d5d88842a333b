"""LocalExecutor keeps the laws."""

import pytest
from nemorun_devkit import ExecutorLaws
from nemorun_local import LocalExecutor


class TestLocalExecutor(ExecutorLaws):
    @pytest.fixture
    def executor(self):
        return LocalExecutor()

    @pytest.fixture
    def unhonoured_executors(self):
        return [LocalExecutor(nodes=0), LocalExecutor(ntasks_per_node=-1), LocalExecutor(max_parallel=0)]
