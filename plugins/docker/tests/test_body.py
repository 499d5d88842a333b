"""The requests that make a job, beside golden files; and what the engine's refusals mean. Needs no engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nemorun_docker import DockerExecutor
from nemorun_docker.backend import DockerBackend
from nemorun_docker.body import container_name
from nemorun_docker.refusals import refusal
from nemorun_docker.secret_files import assignments

import nemorun_core as run

GOLDEN = Path(__file__).parent / "golden"


def submission(executor, *argvs, environment=None, bundle=None):
    members = tuple(
        run.Member(argv=argv, environment=environment or {"A": "1"}, cwd="/exp/bundles/d" if bundle else "/launched")
        for argv in argvs
    )
    return run.Submission(
        key=run.Key("0" * 16, "train", 0),
        members=members,
        executors=(executor,) * len(members),
        folder="/exp/train",
        support="/exp/support",
        bundles=(run.Bundle("d", "/exp/bundles/d.tar") if bundle else None,) * len(members),
    )


CASES = {
    "plain": submission(DockerExecutor(container_image="python:3.12"), ("bash", "-c", "echo 'a  b' $HOME")),
    "limits": submission(
        DockerExecutor(
            container_image="nvcr/pytorch",
            gpus="all",
            cpus=2,
            memory="8g",
            shm_size="1g",
            ulimits=["memlock=-1"],
            ipc_mode="host",
            user="1000:1000",
            entrypoint="/opt/entry.sh",
            volumes=["/data:/data:ro", "/launched:/launched"],
            separate_stderr=True,
        ),
        ("python", "train.py"),
        environment={"TOKEN": run.Secret.from_env("TOKEN"), "A": "é"},
    ),
    "bundle": submission(DockerExecutor(container_image="i"), ("python3", "/exp/objects/12"), bundle=True),
    "group": submission(DockerExecutor(container_image="i"), ("a",), ("b",)),
    "host": submission(DockerExecutor(container_image="i", network="host"), ("a",), ("b",)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_job_is_rendered_as_its_golden_file_says(case, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr("nemorun_docker.body.hostname", lambda: "here")
    monkeypatch.setattr("nemorun_docker.body.boot_id", lambda: "boot")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    backend = DockerBackend()
    try:
        text = "".join(f"== {document.name}\n{document.text}\n" for document in backend.render(CASES[case]))
    finally:
        backend.close()
    golden = GOLDEN / f"{case}.txt"
    assert text == golden.read_text(), f"look at the difference, then write it to {golden.name}"


def test_names_in_a_group_are_names_of_hosts():
    key = run.Key("0" * 16, "A job_1.Ü" * 20, 0)
    names = [container_name(key, number, 12) for number in (0, 11)]
    assert len(set(names)) == 2
    for name in names:
        assert len(name) <= 63
        assert name.replace("-", "").isalnum()
        assert name == name.lower()
    assert container_name(key, 0, 1) == key.slug()


@pytest.mark.parametrize("value", ["plain", "", "it's", "a 'b' \"c\" $HOME `id`\n\\d\n", "é☃", "''", "--x\t"])
def test_a_secret_passes_through_every_shell(value):
    for shell in (["sh"], ["dash"], ["bash"], ["busybox", "sh"]):
        text = assignments({"NAME": value}).decode() + 'printf %s "$NAME"'
        try:
            done = subprocess.run([*shell, "-c", text], capture_output=True, check=True, timeout=20)
        except FileNotFoundError:
            continue
        assert done.stdout == value.encode()


FOR_GOOD = {
    "No such image: nosuch:latest": ("image", "needs an image that is here"),
    'failed to create shim task: OCI runtime create failed: runc create failed: exec: "/bin/sh": stat /bin/sh: no such '
    "file or directory: unknown": ("image", "has /bin/sh"),
    'could not select device driver "" with capabilities: [[gpu]]': ("rejected", "no GPU driver"),
    "Unknown runtime specified nvidia": ("rejected", "no GPU driver"),
    "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 failed: port is already "
    "allocated": ("rejected", "port in use"),
    "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available": ("limit", "more than this machine"),
    "OCI runtime create failed: error setting rlimits: error setting rlimit type 8: operation not permitted": (
        "limit",
        "more than this machine",
    ),
    'invalid mount config for type "bind": bind source path does not exist: /nosuch': ("rejected", "bad mount"),
    "--storage-opt is supported only for overlay over xfs with 'pquota' mount option": (
        "limit",
        "more than this machine",
    ),
    "something new": ("rejected", "the Docker engine: something new"),
}


@pytest.mark.parametrize("message", FOR_GOOD)
def test_a_refusal_has_a_reason_of_its_own(message):
    answer = refusal(message)
    kind, words = FOR_GOOD[message]
    assert isinstance(answer, run.Rejected)
    assert answer.reason.kind.value == kind
    assert words in answer.reason.detail


@pytest.mark.parametrize(
    "message",
    [
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "all predefined address pools have been fully subnetted",
        "no available IPv4 addresses on this network's address pools: bridge (1234)",
        "write /var/lib/docker/x: no space left on device",
    ],
)
def test_a_limit_that_passes_puts_the_job_off(message):
    assert isinstance(refusal(message), run.Deferred)


def test_the_sdk_is_not_loaded_by_the_executor_or_by_an_open_backend():
    text = """
import sys
import nemorun_core as run
executor = run.DockerExecutor(container_image="i")
executor.check()
with executor.backend():
    pass
assert not {"docker", "requests", "urllib3"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)


def test_golden_files_are_json_below_their_names():
    for path in GOLDEN.glob("*.txt"):
        for part in path.read_text().split("== ")[1:]:
            json.loads(part.partition("\n")[2])
