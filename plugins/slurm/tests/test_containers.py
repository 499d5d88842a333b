"""Containers on a real cluster. pyxis and Apptainer are stand-ins, which take their options and run in a folder that
knows nothing of this machine: a shell, what jobs show it, and an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from nemorun_slurm import SlurmExecutor

import nemorun_core as run

from .slurm_cluster import Cluster, missing

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]

PYXIS = Path(__file__).with_name("pyxis.c")
# apptainer(1), of `exec` alone: in a mount namespace of its own, with the image's environment and what
# APPTAINERENV_<name> sets over it.
APPTAINER = r"""#!/bin/bash
[ "$1" = exec ] || exit 64
shift
binds=(/proc:/proc /dev:/dev)
while :; do case $1 in --bind) binds+=("$2"); shift 2 ;; --pwd) cwd=$2; shift 2 ;; *) break ;; esac; done
image=$1
shift
export shown="${binds[*]@Q}" image cwd
exec unshare --mount --propagation private bash -c '
    eval "binds=($shown)"
    for bind in "${binds[@]}"; do
        IFS=: read -r from to flags <<<"$bind"
        mkdir -p "$image$to" && mount --rbind "$from" "$image$to" || exit 255
        [ "$flags" != ro ] || mount -o remount,bind,ro "$image$to"
    done
    while IFS="=" read -r name value; do export "$name=$value"; done <"$image/etc/environment"
    while IFS= read -rd "" line; do
        case $line in APPTAINERENV_*) line=${line#APPTAINERENV_}; export "$line" ;; esac
    done < <(env -0)
    exec chroot "$image" /bin/sh -c '\''cd "$0" && exec "$@"'\'' "$cwd" "$@"
' bash "$@"
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder that is a root file system, with dash, cat and env, in which STAGE and LEVEL are set."""
    root = tmp_path / "image"
    for program, name in (("dash", "sh"), ("dash", "dash"), ("cat", "cat"), ("env", "env")):
        found = shutil.which(program)
        assert found
        listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
        for source, target in [(Path(found), root / "bin" / name), *((one, root / str(one)[1:]) for one in libraries)]:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    (root / "etc").mkdir()
    (root / "etc" / "environment").write_text("STAGE=of the image\nLEVEL=of the image\nMINE=of the image\n")
    return root


@pytest.fixture
def with_pyxis(own_cluster: Callable[..., Cluster], tmp_path: Path) -> Cluster:
    """A cluster whose srun has the options of pyxis."""
    if not Path("/usr/include/slurm/spank.h").exists() or not shutil.which("gcc"):
        missing("needs gcc and the headers of Slurm's plugins: apt-get install gcc libslurm-dev")
    library = tmp_path / "pyxis.so"
    subprocess.run(["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(PYXIS)], check=True)
    stack, extra = tmp_path / "plugstack.conf", tmp_path / "extra.conf"
    stack.write_text(f"required {library}\n")
    extra.write_text(f"PlugStackConfig={stack}\n")
    return own_cluster("--nodes", "1", "--acct", "none", "--extra", str(extra))


@pytest.fixture
def with_apptainer(cluster: Cluster, tmp_path: Path, monkeypatch) -> Cluster:
    """A cluster on whose nodes there is Apptainer."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apptainer").write_text(APPTAINER)
    (tmp_path / "bin" / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return cluster


@pytest.mark.parametrize(
    ("runtime", "where"),
    [pytest.param("pyxis", "with_pyxis", marks=pytest.mark.nightly), ("apptainer", "with_apptainer")],
)
def test_a_program_runs_in_its_image_and_all_else_is_as_without(runtime, where, image, request, tmp_path, monkeypatch):
    cluster: Cluster = request.getfixturevalue(where)
    data, project = tmp_path / "data", tmp_path / "a project"
    for folder in (data, project):
        folder.mkdir()
    (data / "file").write_text("shown\n")
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("MINE", "of the submitter")
    monkeypatch.chdir(project)
    executor = SlurmExecutor(
        container_image=str(image),
        container_runtime=runtime,
        container_mounts=[f"{data}:/data:ro"],
        container_env=["MINE"],
        env_vars={"STAGE": "declared, it's $HOME"},
    )
    script = """
        [ ! -e /usr/bin ] && echo in the image
        cat /data/file
        echo no >/data/file || echo read only
        echo "$STAGE, $LEVEL, $MINE"
        echo "rank $NEMORUN_RANK of job $NEMORUN_JOB, attempt $NEMORUN_ATTEMPT"
        [ "$PWD" = "$1" ] && echo written >here
        exit 7
    """
    with run.Experiment("contained", executor, log_level="ERROR") as experiment:
        experiment.add(run.Script(inline=script, entrypoint="/bin/sh", args=[str(project)]), name="inside")
        experiment.run()
    [job] = (experiment.status(return_dict=True) or {}).values()
    log = (Path(str(job["local_dir"])) / "0.0.0.out").read_text()
    assert (job["state"], job["exit_code"]) == ("FAILED", 7), log
    assert [line for line in log.splitlines() if "cannot create" not in line] == [
        "in the image",
        "shown",
        "read only",
        "declared, it's $HOME, of the image, of the submitter",
        "rank 0 of job inside, attempt 0",
    ]
    assert (project / "here").read_text() == "written\n"
    assert (data / "file").read_text() == "shown\n"
