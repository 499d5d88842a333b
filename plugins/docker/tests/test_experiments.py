"""Docker jobs through `Experiment`: code that travels, outputs, mixed graphs, groups; what people see."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from nemorun_docker import DockerExecutor
from nemorun_local import LocalExecutor

from nemorun_core import Experiment, Partial, PatternPackager, Script, Secret, UsageError

from .conftest import HOST, IMAGE, SMALL, clear, remains

pytestmark = pytest.mark.docker


@pytest.fixture
def experiment(docker_host, engine, tmp_path, monkeypatch):
    """Make experiments, run in a folder of their own; afterwards nothing of them is on the engine."""
    made: list[Experiment] = []
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def make(**options):
        made.append(Experiment("docker", log_level="ERROR", **options))
        return made[-1]

    yield make
    left = []
    for one in made:
        nonce = json.loads((folder_of(one) / "experiment.json").read_text())["nonce"]
        left += remains(engine, nonce)
        clear(engine, nonce)
    assert left == []


def status(experiment):
    return experiment.status(return_dict=True)


def folder_of(experiment):
    return Path(str(next(iter(status(experiment).values()))["local_dir"])).parent


def log(experiment, job, member=0):
    return (folder_of(experiment) / job / f"0.0.{member}.out").read_text()


def sh(text, **fields):
    return Script(inline=text, entrypoint="sh", **fields)


def small(**fields):
    return DockerExecutor(container_image=SMALL, pull="never", **fields)


def test_a_job_runs_in_its_bundle_and_its_outputs_are_brought(experiment, tmp_path):
    Path("main.sh").write_text("cat data.txt; echo made >made.txt")
    Path("data.txt").write_text("shipped\n")
    packager = PatternPackager(include_pattern="*", relative_path=".")
    with experiment() as exp:
        exp.add(Script("main.sh", entrypoint="sh"), executor=small(packager=packager, outputs=["*.txt"]), name="a")
        exp.run(check=True)
    assert log(exp, "a") == "shipped\n"
    exp.sync("a", to=str(tmp_path / "brought"))
    assert sorted(path.name for path in (tmp_path / "brought").rglob("*.txt")) == ["data.txt", "made.txt"]


def local_function(number: int) -> None:
    print("called with", number, os.path.exists("/.dockerenv"))


def test_a_function_is_called_in_the_image(experiment):
    """By the image's own Python, which has nothing of ours."""
    executor = DockerExecutor(container_image=IMAGE, pull="never")
    with experiment() as exp:
        exp.add(Partial(print, "hello", 3), executor=executor, name="standard")
        exp.run(check=True)
    assert log(exp, "standard") == "hello 3\n"


def test_a_function_that_only_lies_here_is_refused(docker_host):
    with Experiment("refused", log_level="ERROR") as exp, pytest.raises(UsageError, match="Ship it"):
        exp.add(Partial(local_function, 1), executor=DockerExecutor(container_image=IMAGE))


def test_the_folder_of_the_launch_is_worked_in_where_it_is_shown(experiment):
    with experiment() as exp:
        exp.add(sh("echo here >made; pwd"), executor=small(volumes=[f".:{os.getcwd()}"]), name="a")
        exp.run(check=True)
    assert Path("made").read_text() == "here\n"
    assert log(exp, "a") == os.getcwd() + "\n"


def test_a_graph_of_local_and_docker_jobs_runs_in_its_order(experiment):
    executor = small(volumes=[f".:{os.getcwd()}"])
    with experiment() as exp:
        first = exp.add(Script(inline="echo 1 >>order"), executor=LocalExecutor(), name="first")
        second = exp.add([sh("echo 2 >>order")] * 2, executor=executor, name="second", dependencies=[first])
        exp.add(Script(inline="echo 3 >>order"), executor=LocalExecutor(), name="third", dependencies=[second])
        exp.run(check=True)
    assert Path("order").read_text().split() == ["1", "2", "2", "3"]


def test_a_detached_graph_ends_without_its_launcher(experiment, tmp_path):
    text = f"""
        import os
        import nemorun_core as run
        docker = run.DockerExecutor(container_image={SMALL!r}, pull="never", volumes=[f".:{{os.getcwd()}}"])
        with run.Experiment("detached", id="detached_1", log_level="ERROR") as exp:
            first = exp.add(run.Script(inline="echo 1 >>order"), executor=run.LocalExecutor(), name="first")
            task = run.Script(inline="sleep 0.5; echo 2 >>order", entrypoint="sh")
            second = exp.add(task, executor=docker, name="second", dependencies=[first])
            third = run.Script(inline="echo 3 >>order")
            exp.add(third, executor=run.LocalExecutor(), dependencies=[second], name="third")
            exp.run(detach=True)
        os.kill(os.getpid(), 9)
    """
    environment = {**os.environ, "DOCKER_HOST": HOST}
    subprocess.run([sys.executable, "-c", textwrap.dedent(text)], env=environment, timeout=60, check=False)
    exp = Experiment.from_id("detached_1")
    exp.wait(60)
    assert {name: job["state"] for name, job in status(exp).items()} == dict.fromkeys(
        ("first", "second", "third"), "SUCCEEDED"
    )
    assert Path("order").read_text().split() == ["1", "2", "3"]


def test_a_secret_is_in_no_record_and_in_no_container(experiment, engine, monkeypatch):
    word = "-".join(("wholly", "secret"))
    monkeypatch.setenv("SOURCE", word)
    with experiment() as exp:
        task = sh("test ${#TOKEN} = 13", env={"TOKEN": Secret.from_env("SOURCE")})
        exp.add(task, executor=small(keep="all"), name="a")
        exp.run(check=True)
    nonce = json.loads((folder_of(exp) / "experiment.json").read_text())["nonce"]
    [name] = remains(engine, nonce)
    try:
        assert word not in json.dumps(engine.request("GET", f"/containers{name}/json").value)
        assert not [path for path in folder_of(exp).rglob("*") if path.is_file() and word in path.read_text()]
    finally:
        clear(engine, nonce)


def test_a_job_over_its_time_is_stopped(experiment):
    with experiment() as exp:
        exp.add(sh("sleep 60"), executor=small(timeout_seconds=0.3), name="a")
        exp.run()
    assert (status(exp)["a"]["state"], str(status(exp)["a"]["reason"])) == ("FAILED", "timeout")


def test_a_failed_attempt_is_tried_again_in_a_container_of_its_own(experiment):
    executor = small(volumes=[f".:{os.getcwd()}"], retries=1)
    with experiment() as exp:
        exp.add(sh("echo $NEMORUN_ATTEMPT >>attempts; test $NEMORUN_ATTEMPT = 1"), executor=executor, name="a")
        exp.run(check=True)
    assert Path("attempts").read_text().split() == ["0", "1"]


CALLER = 4321
AS_A_USER = f"""
import os
import nemorun_core as run
secrets = {{"TOKEN": run.Secret.from_env("SOURCE")}}
executor = run.DockerExecutor(container_image={SMALL!r}, pull="never", env_vars=secrets)
with run.Experiment("user", id="user_1", log_level="ERROR") as exp:
    exp.add(run.Script(inline="id -u; test $TOKEN = word; exit 3", entrypoint="sh"), executor=executor, name="a")
    exp.run()
found = exp.status(return_dict=True)["a"]
assert found["exit_code"] == 3, found
for place, _, names in os.walk(found["local_dir"]):
    for name in names:
        assert os.stat(os.path.join(place, name)).st_uid == {CALLER}, name
assert open(os.path.join(found["local_dir"], "0.0.0.out")).read() == "0\\n"
assert not os.listdir("/dev/shm/nemorun-docker-{CALLER}")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_files_belong_to_a_caller_who_is_not_root_where_the_container_is(between):
    folder = Path(tempfile.mkdtemp(prefix="nemorun-user-"))
    try:
        folder.chmod(0o755)
        os.chown(folder, CALLER, CALLER)
        place = Path(between.path)
        place.chmod(0o666)
        open_to_all = folder / "docker.sock"
        open_to_all.symlink_to(place)
        for above in (place.parent, *place.parent.parents):
            if not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{open_to_all}",
            "HOME": str(folder),
            "NEMORUN_HOME": str(folder / "home"),
            "SOURCE": "word",
            "XDG_RUNTIME_DIR": "",
        }
        python = os.environ.get("PYTHON_FOR_ALL", sys.executable)
        if subprocess.run(["test", "-x", os.path.realpath(python)], user=CALLER, check=False).returncode:
            pytest.skip(f"{python} is for root alone: PYTHON_FOR_ALL names another one that has nemorun-docker")
        done = subprocess.run(
            [python, "-c", AS_A_USER],
            user=CALLER,
            group=CALLER,
            extra_groups=[],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(f"/dev/shm/nemorun-docker-{CALLER}", ignore_errors=True)
