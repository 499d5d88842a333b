"""Fields of the executor, as the engine is given them; and which engine that is. Needs none."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import attrs
import pytest
from nemorun_docker import DockerExecutor
from nemorun_docker.endpoint import socket_path
from nemorun_docker.options import config, host_config, size_bytes, visible, volume

from nemorun_core import Executor, Experiment, Script, UsageError
from nemorun_core.registry import Registry


def host(**fields):
    return host_config(DockerExecutor(container_image="image", **fields))


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("512m", 512 << 20), ("2g", 2 << 30), ("1.5G", 3 << 29), ("4gb", 4 << 30), ("8k", 8192)],
)
def test_sizes_are_read_as_the_command_line_reads_them(text, number):
    assert size_bytes(text, "memory") == number


@pytest.mark.parametrize("text", ["", "g", "-1", "0", "1x", "1 000", None])
def test_what_is_no_size_is_refused_with_its_field(text):
    with pytest.raises(UsageError, match=r"DockerExecutor\(memory="):
        size_bytes(text, "memory")


def test_limits_have_the_names_of_the_engine():
    made = host(cpus=1.5, memory="2g", shm_size=1024, ulimits=["memlock=-1", "nofile:1024:2048"], ipc_mode="host")
    assert made["NanoCpus"] == 1_500_000_000
    assert made["Memory"] == 2 << 30
    assert made["ShmSize"] == 1024
    assert made["IpcMode"] == "host"
    assert made["Ulimits"] == [
        {"Name": "memlock", "Soft": -1, "Hard": -1},
        {"Name": "nofile", "Soft": 1024, "Hard": 2048},
    ]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"gpus": "all"}, {"Count": -1}),
        ({"gpus": 2}, {"Count": 2}),
        ({"num_gpus": 2}, {"Count": 2}),
        ({"gpus": "device=0,3"}, {"DeviceIDs": ["0", "3"]}),
        ({"gpus": [0, 3]}, {"DeviceIDs": ["0", "3"]}),
    ],
)
def test_gpus_are_asked_for(fields, wanted):
    assert host(**fields)["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], **wanted}]


@pytest.mark.parametrize("fields", [{}, {"gpus": 0}, {"num_gpus": 0}])
def test_no_gpu_is_no_request(fields):
    assert "DeviceRequests" not in host(**fields)


def test_paths_of_volumes_are_those_of_the_folder_where_they_were_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    executor = DockerExecutor(container_image="i", volumes=["./data:/data:ro", "~/cache:/cache", "named:/models"])
    assert host_config(executor)["Binds"] == [f"{tmp_path}/data:/data:ro", "/home/me/cache:/cache", "named:/models"]


@pytest.mark.parametrize("text", ["data", "/a:b", ":/a", "/a:/b:no", "/a:/b:ro:rw", 3])
def test_what_is_no_volume_is_refused(text):
    with pytest.raises(UsageError, match="volumes"):
        volume(text)


def test_a_folder_is_visible_below_a_volume_of_the_same_path():
    assert visible("/here/a", ["/here:/here"])
    assert not visible("/here/a", ["/here:/elsewhere"])
    assert not visible("/heretofore", ["/here:/here"])


def test_options_of_docker_py_have_their_names():
    made = host(
        additional_kwargs={
            "cap_add": ["SYS_PTRACE"],
            "devices": ["/dev/fuse", "/dev/a:/dev/b:r"],
            "extra_hosts": {"db": "10.0.0.1"},
            "memswap_limit": "4g",
            "pids_limit": 100,
            "ports": {8080: ("127.0.0.1", 80), "53/udp": None},
            "tmpfs": {"/scratch": "size=1g"},
        }
    )
    assert made["CapAdd"] == ["SYS_PTRACE"]
    assert made["Devices"] == [
        {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"},
        {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"},
    ]
    assert made["ExtraHosts"] == ["db:10.0.0.1"]
    assert made["MemorySwap"] == 4 << 30
    assert made["PidsLimit"] == 100
    assert made["PortBindings"] == {
        "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
    }
    assert made["Tmpfs"] == {"/scratch": "size=1g"}


def test_a_program_starts_once_whatever_is_asked_of_the_engine():
    assert host()["RestartPolicy"] == {"Name": "no"}
    with pytest.raises(UsageError, match="use retries"):
        host(additional_kwargs={"restart_policy": {"Name": "always"}})


def test_an_option_that_is_misspelt_is_answered_with_the_near_one():
    with pytest.raises(UsageError, match="did you mean 'cap_add'"):
        host(additional_kwargs={"cap_ad": []})


def test_a_health_check_is_passed_on():
    executor = DockerExecutor(container_image="i", healthcheck={"test": "nvidia-smi", "interval": 10**9})
    assert config(executor)["Healthcheck"] == {"Test": ["CMD-SHELL", "nvidia-smi"], "Interval": 10**9}


def test_all_fields_are_written_and_read_back():
    executor = DockerExecutor(
        container_image="image:1",
        volumes=["/a:/b"],
        network="host",
        gpus=[0],
        cpus=2,
        memory="1g",
        shm_size=5,
        ulimits=["core=0"],
        ipc_mode="host",
        privileged=True,
        user=1000,
        entrypoint="tini --",
        runtime="nvidia",
        healthcheck={"test": ["NONE"]},
        pull="always",
        keep="failed",
        additional_kwargs={"init": True, "ports": {"80": [1, 2]}},
    )
    registry = Registry()
    assert registry.read_executor(registry.record("nemorun.executors", executor)) == executor


@pytest.mark.parametrize("network", ["none", "bridge", "container:x"])
def test_a_group_without_a_network_of_names_is_refused_when_it_is_added(network):
    executor = DockerExecutor(container_image="i", network=network)
    with Experiment("group", log_level="ERROR") as experiment, pytest.raises(UsageError, match="group"):
        experiment.add([Script(inline="a"), Script(inline="b")], executor=executor)


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "ssh://me@there", "npipe:////./pipe/docker", "there"])
def test_an_engine_of_another_machine_is_refused_when_a_job_is_added(monkeypatch, host):
    monkeypatch.setenv("DOCKER_HOST", host)
    with Experiment("far", log_level="ERROR") as experiment, pytest.raises(UsageError, match="of this machine only"):
        experiment.add(Script(inline="a"), executor=DockerExecutor(container_image="i"))


@pytest.fixture
def config_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def test_the_engine_of_this_machine_is_the_default(config_folder):
    assert socket_path() == "/var/run/docker.sock"
    (config_folder / "config.json").write_text(json.dumps({"auths": {}}))
    assert socket_path() == "/var/run/docker.sock"


def make_context(config_folder, host):
    """Keep a context `mine` as `docker context create` does."""
    folder = config_folder / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest()
    folder.mkdir(parents=True)
    meta = {"Name": "mine", "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


@pytest.mark.parametrize("how", ["file", "variable"])
def test_the_current_context_names_the_engine(config_folder, monkeypatch, how):
    make_context(config_folder, "unix:///run/mine.sock")
    if how == "file":
        (config_folder / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    else:
        monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert socket_path() == "/run/mine.sock"


@pytest.mark.parametrize("host", ["tcp://10.0.0.1:2376", "ssh://me@there"])
def test_a_context_of_another_machine_is_refused_with_what_to_do(config_folder, monkeypatch, host):
    make_context(config_folder, host)
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    with pytest.raises(UsageError, match="of this machine only") as refused:
        socket_path()
    assert f"the Docker context 'mine' names the Docker engine '{host}'" in str(refused.value)
    assert "DOCKER_CONTEXT=default" in str(refused.value)


def test_a_context_that_is_not_there_or_broken_is_refused(config_folder, monkeypatch):
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    with pytest.raises(UsageError, match="there is no Docker context 'mine'"):
        socket_path()
    make_context(config_folder, "unix:///run/mine.sock").write_text("[]")
    with pytest.raises(UsageError, match="cannot be read"):
        socket_path()


def test_docker_host_wins_over_the_context(config_folder, monkeypatch):
    (config_folder / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    assert socket_path() == "/run/other.sock"


def test_outputs_need_a_folder_that_outlives_the_container(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DockerExecutor(container_image="i", outputs=["*.pt"], volumes=[f".:{os.getcwd()}"]).check()
    with pytest.raises(UsageError, match="folder of the image"):
        DockerExecutor(container_image="i", outputs=["*.pt"]).check()


def test_the_readme_names_every_field():
    readme = Path(__file__).parents[1] / "README.md"
    if not readme.exists():
        pytest.skip("needs the checkout's README")
    named = set(re.findall(r"^\| (`.*?) \|", readme.read_text(), re.M))
    fields = {field.name for field in attrs.fields(DockerExecutor)} - {field.name for field in attrs.fields(Executor)}
    assert fields == {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
