"""Podman's socket, by what Podman answers. The package is too heavy for CI; what it says was recorded."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nemorun_docker import DockerExecutor

from nemorun_core import Experiment, Script, UsageError

# `GET /_ping HTTP/1.0` of Podman 4.3.1 (Debian 12), `podman system service`.
PING = """HTTP/1.0 200 OK
Api-Version: 1.41
Builder-Version:
Buildkit-Version:
Cache-Control: no-cache
Docker-Experimental: true
Libpod-Api-Version: 4.3.1
Libpod-Buildah-Version: 1.28.2
Pragma: no-cache
Server: Libpod/4.3.1 (linux)
X-Reference-Id: 0xc000014008
Date: Fri, 27 Nov 2026 05:46:37 GMT
Content-Length: 2
Content-Type: text/plain; charset=utf-8

OK""".replace("\n", "\r\n").encode()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have DOCKER_HOST name a socket that answers so; return the first lines of what it is asked."""
    lines: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "podman.sock"))
        server.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/podman.sock")

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                with connection:
                    words = connection.recv(1 << 16).decode().split("\r\n")
                    if words == [""]:
                        return
                    lines.append(words[0])
                    connection.sendall(PING)

        thread = threading.Thread(target=serve)
        thread.start()
        yield lines
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(tmp_path / "podman.sock"))
        thread.join()


def test_a_job_is_refused_with_what_to_do_and_nothing_is_made(asked):
    with Experiment("podman", log_level="ERROR") as experiment:
        experiment.add(Script(inline="true"), executor=DockerExecutor(container_image="i"), name="a")
        experiment.run()
    found = experiment.status(return_dict=True)["a"]
    assert found["state"] == "FAILED"
    assert "podman.sock is Podman's socket, and DockerExecutor needs a Docker engine" in str(found["reason"])
    assert "Unset DOCKER_HOST" in str(found["reason"])
    assert set(asked) == {"GET /_ping HTTP/1.0"}


def test_the_doctor_is_told(asked):
    with DockerExecutor(container_image="i").backend() as backend, pytest.raises(UsageError, match="Podman's socket"):
        backend.check()
