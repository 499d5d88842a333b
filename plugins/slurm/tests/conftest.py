"""The cluster of the tests that are marked `slurm`: the one that SLURM_CLUSTER names, see tests/clusters/slurm/up."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nemorun_devkit.kit import Kit
from nemorun_slurm import SlurmExecutor

from .slurm_cluster import SCRIPTS, Cluster, Wrapped, missing, start_cluster

# Read here: tests get a home and settings of their own.
_FOLDER = os.environ.get("SLURM_CLUSTER", "")
_SECONDS = 60.0


@pytest.fixture(scope="session")
def running_cluster() -> Cluster:
    """The running cluster; skips, or fails where NEMORUN_REQUIRE_ENGINES=1, if none answers."""
    if _FOLDER and (found := Cluster(Path(_FOLDER))).conf.exists() and found.answers():
        return found
    why = "no Slurm cluster answers: tests/clusters/slurm/up --uts --ssh --cgroup, then source the file that it names"
    missing(why)


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """The running cluster, to be asked and used, and not to be broken: other tests use it at the same time."""
    return running_cluster


@pytest.fixture
def own_cluster(running_cluster: Cluster) -> Iterator[Callable[..., Cluster]]:
    """Start a cluster for one test alone, to be broken for good: `own_cluster("--acct", "none")`."""
    folders: list[str] = []

    def start(*options: str) -> Cluster:
        folder = tempfile.mkdtemp(prefix="nms")  # short, for the sockets below it
        os.chmod(folder, 0o755)
        folders.append(folder)
        return start_cluster(Path(folder) / "c", "--gpus", "0", *options)

    yield start
    for folder in folders:
        subprocess.run([str(SCRIPTS / "down"), f"{folder}/c", "--purge"], check=False, timeout=60, capture_output=True)
        os.rmdir(folder)


@pytest.fixture
def wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrapped:
    """Commands that stand before Slurm's own."""
    made = Wrapped(tmp_path / "wrapped")
    monkeypatch.setenv("PATH", made.path)
    return made


@pytest.fixture
def kit_on(monkeypatch, tmp_path: Path) -> Iterator[Callable[..., Kit]]:
    """Return what drives the backend by hand on a cluster."""
    kits: list[Kit] = []

    def make(cluster: Cluster, **fields: object) -> Kit:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        folder = tmp_path / f"kit{len(kits)}"
        shared = folder / "shared"
        shared.mkdir(parents=True)
        kits.append(Kit(SlurmExecutor(**fields), folder, shared, _SECONDS))
        return kits[-1]

    yield make
    for kit in kits:
        kit.close()
