"""The example of the README runs on a real engine, as it stands there but for the image."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SMALL

pytestmark = pytest.mark.docker

README = Path(__file__).parents[1] / "README.md"


def test_the_guides_group_runs_from_the_readme(docker_host, tmp_path):
    if not README.exists():
        pytest.skip("needs the checkout's README")
    block = re.search(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
    assert block is not None
    assert "exp.add([task_2, task_3], executor=run.DockerExecutor(" in block[1]
    text = block[1].replace('"busybox"', f'"{SMALL}"')
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
