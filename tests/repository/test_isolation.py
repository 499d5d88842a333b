"""The check of conftest.py sees what it must see: a check that cannot fail would be worse than none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEAK = "import subprocess\n\n\ndef test_it():\n    subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
CLEAN = "import os\n\n\ndef test_it(tmp_path):\n    assert os.environ['NEMORUN_HOME'].startswith(str(tmp_path))\n"


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    conftest = (ROOT / "conftest.py").read_text().replace("SECONDS_TO_END = 5.0", "SECONDS_TO_END = 0.2")
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={folder / 'tmp'}", "test_it.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"NEMORUN_X": "1"})


def test_a_test_that_leaves_a_process_fails_and_the_process_is_killed(tmp_path):
    done = run(tmp_path, LEAK)
    assert done.returncode == 1
    assert "sleep 60" in done.stdout


def test_a_test_that_leaves_nothing_passes_with_a_home_of_its_own(tmp_path):
    done = run(tmp_path, CLEAN)
    assert done.returncode == 0, done.stdout
