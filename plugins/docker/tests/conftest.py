"""The engine of the tests, and something between it and the backend that can be broken."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nemorun_docker.client import Engine

REQUIRED = os.environ.get("NEMORUN_REQUIRE_ENGINES") == "1"  # read now: each test's own environment has none of ours
HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
REGISTRY = os.environ.get("DOCKER_TEST_REGISTRY", "")
IMAGE, SMALL = "test/py", "test/bb"
UP = 'eval "$(tests/clusters/docker/up)"'
SECONDS = 30.0


def _missing() -> str:
    """Return why the tests of this folder cannot run, "" if they can."""
    path = HOST.removeprefix("unix://")
    if not path.startswith("/") or not os.path.exists(path):
        return f"no Docker engine at {HOST}: {UP}"
    try:
        engine = Engine(path)
        engine.ping(10.0)
        lacking = [name for name in (IMAGE, SMALL) if engine.request("GET", f"/images/{name}/json").is_refusal]
    except Exception as error:
        return f"no Docker engine at {HOST} ({error}): {UP}"
    return f"the engine at {HOST} lacks {', '.join(lacking)}: {UP}" if lacking else ""


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Return a client of the engine; the test is skipped where none answers, and fails where one must."""
    if why := _missing():
        if REQUIRED:
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    return Engine(HOST.removeprefix("unix://"))


@pytest.fixture
def docker_host(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have DOCKER_HOST name the engine of the tests."""
    monkeypatch.setenv("DOCKER_HOST", HOST)
    return HOST


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {SECONDS:g} s"
        time.sleep(0.01)


class Between:
    """A socket in front of the engine's: it counts requests, keeps the bodies of what is made, and can be broken.

    Attributes:
        requests: first lines of all requests, in order.
        made: name of a container to the body that it was made of.
        down: nothing is let through, and what is open is cut.
        lose: the answer to a request whose first line holds this text is thrown away.
        refuse: a request whose first line holds the first text is answered with the second, as a refusal.
        hold: a request whose first line holds this text is passed on when `let_go` is called, and gets no answer.
    """

    def __init__(self, folder: Path, target: str) -> None:
        self.path = str(folder / "between.sock")
        self._target = target
        self.requests: list[str] = []
        self.made: dict[str, object] = {}
        self.down = False
        self.lose = self.hold = ""
        self.refuse: tuple[str, str] | None = None
        self._held: list[bytes] = []
        self._open: set[socket.socket] = set()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(self.path)
        self._server.listen(128)
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while not self._closing:
            if not select.select([self._server], [], [], 0.1)[0]:
                continue
            client, _ = self._server.accept()
            if self.down:
                client.close()
                continue
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with client, engine, contextlib.suppress(OSError):
            self._open |= {client, engine}
            asked = b""
            while b"\r\n\r\n" not in asked:
                if not (piece := client.recv(1 << 16)):
                    return
                asked += piece
            head, _, body = asked.partition(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            while len(body) < length:
                body += client.recv(1 << 16)
            first = head.split(b"\r\n")[0].decode()
            self.requests.append(first)
            if "/containers/create?name=" in first:
                self.made[first.split("name=")[1].split(" ")[0]] = json.loads(body)
            if self.hold and self.hold in first:
                self._held.append(head + b"\r\n\r\n" + body)
                return
            if self.refuse and self.refuse[0] in first:
                words = json.dumps({"message": self.refuse[1]}).encode()
                client.sendall(b"HTTP/1.0 500 Error\r\nContent-Type: application/json\r\n\r\n" + words)
                return
            engine.connect(self._target)
            engine.sendall(head + b"\r\n\r\n" + body)
            if self.lose and self.lose in first:
                while engine.recv(1 << 16):
                    pass
                return
            while piece := engine.recv(1 << 16):
                client.sendall(piece)
        self._open -= {client, engine}

    def let_go(self) -> None:
        """Pass on what was held, and wait until it is done."""
        for request in self._held:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
                engine.connect(self._target)
                engine.sendall(request)
                while engine.recv(1 << 16):
                    pass
        self._held.clear()

    def cut(self) -> None:
        """Cut all that is open."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """The engine does not answer."""
        self.down = True
        self.cut()
        try:
            yield
        finally:
            self.down = False

    def close(self) -> None:
        self._closing = True
        self._accepting.join()
        self.cut()
        for thread in self._threads:
            thread.join(SECONDS)
        self._server.close()


@pytest.fixture
def between(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Between]:
    """Stand between the backend and the engine."""
    made = Between(tmp_path_factory.mktemp("b"), engine.path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{made.path}")
    yield made
    made.close()


def remains(engine: Engine, nonce: str) -> list[str]:
    """Return the containers and networks of an experiment that are on the engine."""
    label = {"label": [f"nemorun.nonce={nonce}"]}
    found = [one["Names"][0] for one in engine.request("GET", "/containers/json", all="true", filters=label).value]
    return found + [one["Name"] for one in engine.request("GET", "/networks", filters=label).value]


def clear(engine: Engine, nonce: str) -> None:
    """Remove what an experiment has on the engine, as `docker rm` and `docker network rm` do."""
    label = {"label": [f"nemorun.nonce={nonce}"]}
    for one in engine.request("GET", "/containers/json", all="true", filters=label).value:
        engine.request("DELETE", f"/containers/{one['Id']}", force="true", v="true")
    for one in engine.request("GET", "/networks", filters=label).value:
        engine.request("DELETE", f"/networks/{one['Id']}")


def docker(*words: str) -> str:
    """Run docker(1), and return what it says."""
    command = ["docker", *words]
    done = subprocess.run(command, env={**os.environ, "DOCKER_HOST": HOST}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
