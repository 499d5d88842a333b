"""The pages of nemorun-slurm: its table has every field, and what needs a cluster runs where one is."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.options import FLAGS

from nemorun_core import Executor
from plugins.slurm.tests.slurm_cluster import SCRIPTS, start_cluster
from tests.docs.test_pages import ROOT, run_page

REQUIRED = os.environ.get("NEMORUN_REQUIRE_ENGINES") == "1"  # read here: tests get settings of their own
README = (ROOT / "plugins" / "slurm" / "README.md").read_text()
PAGE = (ROOT / "docs" / "how-to" / "slurm.md").read_text()
HERE = "tests/docs/test_slurm_page.py"
ON_ONE = f"needs a cluster; {HERE} runs it on one"
WITHOUT_ACCOUNTING = f"needs a cluster; {HERE} runs it on one, and on one without accounting"
OVER_SSH = f"needs a cluster that is reached through ssh; {HERE} runs it on one"
LIKE_SSH = f"needs a cluster that is reached through ssh; {HERE} opens the like"


def test_the_table_has_every_field():
    own = [field.name for field in attrs.fields(SlurmExecutor) if field.name not in attrs.fields_dict(Executor)]
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    assert [name for name in own if not any(f"`{name}`" in row.split("|")[1] for row in rows)] == []


@pytest.mark.parametrize(("field", "flag"), FLAGS.items())
def test_the_table_has_the_option_of_each_field(field, flag):
    [row] = [line for line in README.splitlines() if line.startswith("| `") and f"`{field}`" in line.split("|")[1]]
    option = row.split("|")[2]
    assert f"`{flag}`" in option or (option.strip() == "the same" and flag == f"--{field}")


def blocks_marked(why: str, language: str = "python") -> list[str]:
    """Return the blocks of the page that a comment says are run here, as a page of their own."""
    found = re.findall(rf"^<!-- not run: {re.escape(why)} -->\n(```{language}\n.*?^```)", PAGE, re.M | re.S)
    assert found, why
    return found


@pytest.fixture
def cluster() -> Path:
    """The folder of the running cluster; skips, or fails where engines are required, if none answers."""
    ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=60)
    if "is UP" in ping.stdout:
        return Path(os.environ["SLURM_CLUSTER"])
    why = "no Slurm cluster answers: tests/clusters/slurm/up --ssh, then source the file that it names"
    if REQUIRED:
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.mark.slurm
def test_what_needs_a_cluster_runs_on_one(cluster, tmp_path):
    done = run_page("\n\n".join([*blocks_marked(ON_ONE), *blocks_marked(WITHOUT_ACCOUNTING)]), tmp_path)
    assert done.returncode == 0, done.stdout
    assert "training" in done.stdout
    assert re.search(r"Task 0: small: would start at \S+Z on \S+\nTask 1: lost: refused: .*nowhere", done.stdout)
    assert "- Reason: exit code 3\n" in done.stdout


@pytest.mark.slurm
def test_what_needs_no_accounting_runs_without(cluster, tmp_path, monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="nms")) / "c"  # short, for the sockets below it
    folder.parent.chmod(0o755)
    try:
        start_cluster(folder, "--nodes", "1", "--gpus", "0", "--acct", "none")
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        assert subprocess.run(["sacct"], capture_output=True).returncode != 0
        first, *_ = blocks_marked(ON_ONE)
        done = run_page("\n\n".join([first, *blocks_marked(WITHOUT_ACCOUNTING)]), tmp_path)
    finally:
        subprocess.run([str(SCRIPTS / "down"), str(folder), "--purge"], capture_output=True, timeout=60)
        folder.parent.rmdir()
    assert done.returncode == 0, done.stdout
    assert "training" in done.stdout
    assert "- Reason: exit code 3\n" in done.stdout


@pytest.fixture
def two_factors(cluster: Path, tmp_path: Path, monkeypatch) -> Iterator[list[str]]:
    """A login node called `cluster`, which wants a second key that only a terminal has; return the terminal's ssh."""
    ssh, port = cluster / "ssh", _free_port()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "factor")], check=True)
    keys = tmp_path / "authorized"
    keys.write_text((ssh / "authorized").read_text() + (tmp_path / "factor.pub").read_text())
    sshd = tmp_path / "sshd_config"
    changed = {"Port": port, "PidFile": tmp_path / "sshd.pid", "AuthorizedKeysFile": keys}
    kept = [line for line in (ssh / "sshd_config").read_text().splitlines() if line.partition(" ")[0] not in changed]
    more = [f"{name} {value}" for name, value in changed.items()]
    sshd.write_text("\n".join([*kept, *more, "AuthenticationMethods publickey,publickey", ""]))
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{port} {' '.join((ssh / 'host.pub').read_text().split()[:2])}\n")
    sockets = tempfile.mkdtemp(prefix="nmc")
    config = tmp_path / "config"
    config.write_text(
        f"Host cluster\n HostName 127.0.0.1\n Port {port}\n IdentityFile {ssh / 'id'}\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {known}\n ControlMaster auto\n ControlPath {sockets}/%C\n ControlPersist 12h\n"
    )
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{config}" "$@"\n')
    (commands / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    daemon = subprocess.Popen([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", str(sshd)])
    try:
        yield ["ssh", "-i", str(tmp_path / "factor")]
    finally:
        _quietly("ssh", "-O", "exit", "cluster")
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(sockets)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _quietly(*argv: str) -> int:
    null = subprocess.DEVNULL  # no pipe: what stays in the background would hold it open
    return subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=60).returncode


@pytest.mark.slurm
def test_with_a_second_factor_what_a_terminal_opened_is_used(two_factors, tmp_path):
    [opening] = blocks_marked(LIKE_SSH, "sh")
    program = "\n\n".join(blocks_marked(OVER_SSH)).replace("/home/me/nemorun", str(tmp_path / "remote"))
    until = time.monotonic() + 10
    while _quietly(*two_factors, "cluster", "true") and time.monotonic() < until:  # until sshd listens
        time.sleep(0.05)
    _quietly("ssh", "-O", "exit", "cluster")
    assert _quietly("ssh", "-o", "BatchMode=yes", "cluster", "true") == 255
    assert _quietly(*two_factors, *opening.split("\n")[1].split()[1:]) == 0
    done = run_page("```python\nimport nemorun_core as run\n```\n\n" + program, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "hello | hello from" in done.stdout
    assert _quietly("ssh", "-O", "check", "cluster") == 0
