"""The pages of nemorun-slurm: its table has every field, and what needs a cluster runs where one is."""

from __future__ import annotations

import os
import re
import subprocess

import attrs
import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.options import FLAGS

from nemorun_core import Executor
from tests.docs.test_pages import ROOT, run_page

REQUIRED = os.environ.get("NEMORUN_REQUIRE_ENGINES") == "1"  # read here: tests get settings of their own
README = (ROOT / "plugins" / "slurm" / "README.md").read_text()
PAGE = (ROOT / "docs" / "how-to" / "slurm.md").read_text()
ON_A_CLUSTER = re.compile(
    r"<!-- not run: needs a cluster; tests/docs/test_slurm_page.py runs it on one -->\n```python\n.*?^```", re.M | re.S
)


def test_the_table_has_every_field():
    own = [field.name for field in attrs.fields(SlurmExecutor) if field.name not in attrs.fields_dict(Executor)]
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    assert [name for name in own if not any(f"`{name}`" in row.split("|")[1] for row in rows)] == []


@pytest.mark.parametrize(("field", "flag"), FLAGS.items())
def test_the_table_has_the_option_of_each_field(field, flag):
    [row] = [line for line in README.splitlines() if line.startswith("| `") and f"`{field}`" in line.split("|")[1]]
    option = row.split("|")[2]
    assert f"`{flag}`" in option or (option.strip() == "the same" and flag == f"--{field}")


@pytest.mark.slurm
def test_what_needs_a_cluster_runs_on_one(tmp_path):
    ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=60)
    if "is UP" not in ping.stdout:
        why = "no Slurm cluster answers: tests/clusters/slurm/up, then source the file that it names"
        if REQUIRED:
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    blocks = [block.partition("\n")[2] for block in ON_A_CLUSTER.findall(PAGE)]
    assert blocks
    done = run_page("\n\n".join(blocks), tmp_path)
    assert done.returncode == 0, done.stdout
    assert "training" in done.stdout
