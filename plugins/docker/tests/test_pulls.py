"""Images that are pulled from a registry: when, what is said meanwhile, and what happens when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import pytest
from nemorun_devkit.kit import Kit
from nemorun_docker import DockerExecutor

from nemorun_core import (
    Accepted,
    Answer,
    Deferred,
    Experiment,
    Key,
    ReasonKind,
    Rejected,
    Script,
    State,
    Submission,
    TransientError,
)

from .conftest import REGISTRY, REQUIRED, SMALL, UP, Between, clear, docker, wait_until

pytestmark = pytest.mark.docker

LARGE = 1 << 20
"""Bytes of an image's own layer."""


class Registry:
    """The registry of the tests, under an address of this test's own, which can be slow or dead.

    Attributes:
        address: HOST:PORT, of which the engine pulls.
        budget: how many bytes the engine still gets; what is left waits. Manifests take a few thousand.
        dead: connections are cut at once.
        connections: how many are open.
    """

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.budget = 1 << 40
        self.dead = False
        self.connections = 0
        self._closing = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.names: list[str] = []

    def _accept(self) -> None:
        while not self._closing:
            if select.select([self._server], [], [], 0.05)[0]:
                client, _ = self._server.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        host, _, port = REGISTRY.partition(":")
        self.connections += 1
        with client, contextlib.suppress(OSError), socket.create_connection((host, int(port))) as server:
            while not self._closing and not self.dead:
                if self.budget <= 0 and self._has_hung_up(client):
                    break
                watched = [client, server] if self.budget > 0 else [client]
                for source in select.select(watched, [], [], 0.05)[0]:
                    piece = source.recv(4096)
                    if not piece:
                        self.connections -= 1
                        return
                    if source is server:
                        self.budget -= len(piece)
                    (client if source is server else server).sendall(piece)
        self.connections -= 1

    @staticmethod
    def _has_hung_up(client: socket.socket) -> bool:
        return bool(select.select([client], [], [], 0)[0]) and not client.recv(1, socket.MSG_PEEK)

    def publish(self, name: str, says: str = "first", size: int = 1000) -> str:
        """Push an image with /says, whose last layer is nowhere else; return its name, under which it is not here."""
        image, folder = f"{self.address}/{name}", f"/tmp/{secrets.token_hex(8)}"
        container = docker("create", SMALL, "true")
        with _files(folder, {"says": f"{says}\n".encode(), "large": os.urandom(size)}):
            docker("cp", f"{folder}/.", f"{container}:/")
        docker("commit", container, image)
        docker("rm", container)
        docker("push", image)
        docker("rmi", image)
        self.names.append(image)
        return image

    def damage(self, name: str) -> None:
        """Lose the last layer of an image."""
        repository = f"http://{REGISTRY}/v2/{name}"
        wanted = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        with urllib.request.urlopen(urllib.request.Request(f"{repository}/manifests/latest", headers=wanted)) as answer:
            digest = json.load(answer)["layers"][-1]["digest"]
        urllib.request.urlopen(urllib.request.Request(f"{repository}/blobs/{digest}", method="DELETE")).close()

    def is_left(self) -> None:
        """Wait until the engine gives a pull up, which it does when it gets the next bytes."""

        def trickle() -> bool:
            self.budget = min(self.budget + 4096, 4096)
            return self.connections == 0

        wait_until(trickle, "the end of the pull")

    def close(self) -> None:
        self._closing = True
        for thread in self._threads:
            thread.join()
        self._server.close()
        for image in self.names:
            with contextlib.suppress(AssertionError):  # it was not pulled
                docker("rmi", "-f", image)


@contextlib.contextmanager
def _files(folder: str, files: dict[str, bytes]) -> Iterator[None]:
    Path(folder).mkdir()
    for name, content in files.items():
        Path(folder, name).write_bytes(content)
    yield
    for name in files:
        Path(folder, name).unlink()
    Path(folder).rmdir()


@pytest.fixture
def registry(engine) -> Iterator[Registry]:
    if not REGISTRY:
        (pytest.fail if REQUIRED else pytest.skip)(f"no registry in DOCKER_TEST_REGISTRY: {UP}")
    made = Registry()
    yield made
    made.close()


@pytest.fixture
def kit(between: Between, registry, engine, tmp_path) -> Iterator[Kit]:
    """Drive the engine through a socket that counts requests."""
    made = Kit(DockerExecutor(container_image=SMALL), tmp_path, None, 30.0)
    yield made
    made.close()
    clear(engine, made.nonce)


def pulls(between: Between) -> int:
    return sum("/images/create" in request for request in between.requests)


def settled(kit: Kit, job: Submission) -> Answer:
    """Offer a job until it is taken or refused."""
    return _answers(kit, [job])[job.key]


def _answers(kit: Kit, jobs: Sequence[Submission]) -> Mapping[Key, Answer]:
    """Offer jobs, in one call, until none of them is deferred."""
    found: dict[Key, Answer] = {}

    def decided() -> bool:
        found.update(kit.answers(jobs))
        return not any(isinstance(answer, Deferred) for answer in found.values())

    kit.until(decided, "the answers")
    return found


def said(kit: Kit, job: Submission) -> bytes:
    answer = settled(kit, job)
    assert isinstance(answer, Accepted), answer
    kit.end(answer.handle)
    return kit.log(answer.handle)


def test_a_missing_image_is_pulled_once(kit, registry, between):
    executor = kit.options(container_image=registry.publish(kit.nonce), pull="missing")
    assert said(kit, kit.make("cat /says", executor=executor)) == b"first\n"
    assert said(kit, kit.make("cat /says", executor=executor)) == b"first\n"
    kit.reopen()
    assert said(kit, kit.make("cat /says", executor=executor)) == b"first\n"
    assert pulls(between) == 1


def test_an_image_without_a_tag_is_the_latest(kit, registry):
    image = registry.publish(f"{kit.nonce}:latest").removesuffix(":latest")
    assert said(kit, kit.make("cat /says", executor=kit.options(container_image=image))) == b"first\n"


def test_an_image_is_pulled_by_its_digest(kit, registry):
    registry.publish(kit.nonce, "first")
    docker("pull", registry.names[0])
    digest = docker("inspect", "-f", "{{index .RepoDigests 0}}", registry.names[0])
    docker("rmi", registry.names[0])
    registry.publish(kit.nonce, "second")
    registry.names.append(digest)
    assert said(kit, kit.make("cat /says", executor=kit.options(container_image=digest))) == b"first\n"


def test_a_newer_image_of_the_same_tag_is_taken_once_a_run_where_that_is_asked_for(kit, registry, between):
    image = registry.publish(kit.nonce, "first")
    executor = kit.options(container_image=image, pull="always")
    assert said(kit, kit.make("cat /says", executor=executor)) == b"first\n"
    docker("tag", image, f"{image}-kept")
    registry.names.append(f"{image}-kept")
    registry.publish(kit.nonce, "second")
    docker("tag", f"{image}-kept", image)
    assert said(kit, kit.make("cat /says", executor=executor)) == b"first\n"
    kit.reopen()
    assert said(kit, kit.make("cat /says", executor=kit.options(container_image=image, pull="missing"))) == b"first\n"
    assert pulls(between) == 1
    assert said(kit, kit.make("cat /says", executor=executor)) == b"second\n"


def test_an_image_that_is_never_pulled_is_missing(kit, registry, between):
    reason = kit.refusal(
        kit.make("cat /says", executor=kit.options(container_image=registry.publish("n"), pull="never"))
    )
    assert f"docker pull {registry.names[0]}" in reason
    assert pulls(between) == 0


@pytest.mark.parametrize("pull", ["missing", "always"])
def test_a_tag_that_the_registry_lacks_is_refused_in_its_words(kit, registry, pull):
    image = f"{registry.publish(kit.nonce)}:nosuch"
    answer = settled(kit, kit.make("true", executor=kit.options(container_image=image, pull=pull)))
    assert isinstance(answer, Rejected)
    assert answer.reason.kind is ReasonKind.IMAGE
    assert f"{image} cannot be pulled" in answer.reason.detail
    assert "manifest unknown" in answer.reason.detail


def test_jobs_that_need_the_same_image_wait_for_one_pull(kit, registry, between):
    executor = kit.options(container_image=registry.publish(kit.nonce, size=LARGE))
    jobs = [kit.make("cat /says", executor=executor) for _ in range(3)]
    registry.budget = LARGE // 2
    answers = kit.answers(jobs)
    assert {str(answer.reason) for answer in answers.values()} == {f"waiting: pulling image {registry.names[0]}"}
    assert kit.find(*jobs) == {}
    registry.budget = 1 << 40
    assert [said(kit, job) for job in jobs] == [b"first\n"] * 3
    assert pulls(between) == 1


def test_jobs_that_need_the_same_image_are_refused_after_one_pull(kit, registry, between):
    executor = kit.options(container_image=f"{registry.address}/nosuch")
    jobs = [kit.make("true", executor=executor) for _ in range(3)]
    settled(kit, jobs[0])
    between.requests.clear()
    assert {type(answer) for answer in _answers(kit, jobs).values()} == {Rejected}
    assert pulls(between) == 1


def test_the_images_of_a_group_are_pulled_together(kit, registry, between):
    executors = tuple(
        kit.options(container_image=registry.publish(f"{kit.nonce}-{number}", size=LARGE)) for number in range(2)
    )
    made = kit.make("cat /says", "cat /says")
    job = attrs.evolve(made, executors=executors)
    registry.budget = LARGE // 2
    assert isinstance(kit.answer(job), Deferred)
    kit.until(lambda: pulls(between) == 2, "two requests")
    registry.budget = 1 << 40
    answer = settled(kit, job)
    assert [member.exit_code for member in kit.end(answer.handle).members] == [0, 0]


def test_a_job_whose_image_is_here_starts_beside_a_pull(kit, registry):
    """Jobs behind one that waits are not kept back, nor is what runs left alone."""
    slow = kit.make("cat /says", executor=kit.options(container_image=registry.publish(kit.nonce, size=LARGE)))
    quick = kit.make("echo up; exit 3")
    registry.budget = LARGE // 2
    answers = kit.answers([slow, quick])
    assert isinstance(answers[slow.key], Deferred)
    assert kit.end(answers[quick.key].handle).members[0].exit_code == 3


def test_a_pull_that_breaks_off_is_refused_in_the_engines_words(kit, registry):
    """Where an old image of the tag is here it does not run in place of the new one."""
    image = registry.publish(kit.nonce, "first")
    docker("pull", image)
    docker("tag", image, f"{image}-kept")
    registry.names.append(f"{image}-kept")
    registry.publish(kit.nonce, "second")
    docker("tag", f"{image}-kept", image)
    registry.damage(kit.nonce)
    answer = settled(kit, kit.make("cat /says", executor=kit.options(container_image=image, pull="always")))
    assert isinstance(answer, Rejected), answer
    assert f"{image} cannot be pulled: unknown blob" in answer.reason.detail


@pytest.mark.parametrize("pull", ["missing", "always"])
def test_a_pull_goes_on_when_the_engines_socket_was_cut(kit, registry, between, pull):
    image = registry.publish(kit.nonce, size=LARGE)
    job = kit.make("cat /says", executor=kit.options(container_image=image, pull=pull))
    registry.budget = LARGE // 2
    assert isinstance(kit.answer(job), Deferred)
    between.cut()
    registry.budget = 1 << 40
    kit.until(lambda: not isinstance(_retried(kit, job), Deferred), "the pull")
    assert said(kit, job) == b"first\n"


def _retried(kit: Kit, job: Submission) -> Answer:
    try:
        return kit.answer(job)
    except TransientError:
        return kit.answer(job)


def test_a_pull_that_nobody_waits_for_any_more_ends(kit, registry):
    registry.publish(kit.nonce, size=LARGE)
    registry.budget = LARGE // 2
    job = kit.make("true", executor=kit.options(container_image=registry.names[0]))
    assert isinstance(kit.answer(job), Deferred)
    assert registry.connections > 0
    kit.reopen()
    registry.is_left()
    with pytest.raises(AssertionError, match="No such image"):
        docker("image", "inspect", registry.names[0])


def test_an_image_is_pulled_with_the_credentials_of_docker_login(kit, registry, tmp_path, monkeypatch):
    """By a registry of this test's own, which wants a password."""
    with _guarded(tmp_path) as address:
        image = f"{address}/{kit.nonce}:1"
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
        job = kit.make("cat /says", executor=kit.options(container_image=image))
        answer = settled(kit, job)
        assert isinstance(answer, Rejected)
        assert "no basic auth credentials" in answer.reason.detail
        docker("login", "-u", "user", "-p", "word", address)
        source = registry.publish(kit.nonce)
        docker("pull", source)
        docker("tag", source, image)
        docker("push", image)
        docker("rmi", image, source)
        registry.names.append(image)
        assert said(kit, job) == b"first\n"


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hashed = subprocess.run(
        ["perl", "-e", 'print crypt("word", q($2b$05$abcdefghijklmnopqrstuu))'], capture_output=True, text=True
    )
    (folder / "htpasswd").write_text(f"user:{hashed.stdout}\n")
    settings = {
        "version": "0.1",
        "storage": {"inmemory": {}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "registry.yml").write_text(json.dumps(settings))  # which is YAML, too
    with (folder / "registry.log").open("w") as log:
        running = subprocess.Popen(["docker-registry", "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
    try:
        wait_until(lambda: _is_there(address), "the registry")
        yield address
    finally:
        running.kill()
        running.wait()


def _is_there(address: str) -> bool:
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
        return True
    return False


# Through `Experiment`.


def sh(text: str) -> Script:
    return Script(inline=text, entrypoint="sh")


def reason(experiment: Experiment, job: str) -> str:
    return str(experiment.status(return_dict=True)[job]["reason"])


def state(experiment: Experiment, job: str) -> str:
    return str(experiment.status(return_dict=True)[job]["state"])


def test_other_jobs_run_end_and_are_cancelled_while_an_image_is_pulled(registry, docker_host, tmp_path):
    image = registry.publish(secrets.token_hex(8), size=LARGE)
    registry.budget = LARGE // 2
    here = DockerExecutor(container_image=SMALL, pull="never")
    with Experiment("pulls", executor=here, log_level="ERROR") as experiment:
        experiment.add(sh("sleep 600"), name="long")
        experiment.add(sh("true"), name="slow", executor=DockerExecutor(container_image=image))
        second = experiment.add(sh("true"), name="second")
        experiment.add(sh("true"), name="third", dependencies=[second])
        experiment.run()
        wait_until(lambda: state(experiment, "third") == "SUCCEEDED", "the end of the others")
        wait_until(lambda: state(experiment, "long") == "RUNNING", "a job that runs")
        assert (state(experiment, "slow"), reason(experiment, "slow")) == ("PENDING", f"waiting: pulling image {image}")
        experiment.cancel("long")
        wait_until(lambda: state(experiment, "long") == "CANCELLED", "the end of a job that was cancelled")
        asked = time.monotonic()
        experiment.cancel("slow")
        wait_until(lambda: state(experiment, "slow") == "CANCELLED", "the end of a job that waits for its image")
        assert time.monotonic() - asked < 5.0
    registry.is_left()


def test_a_job_whose_registry_does_not_answer_fails_and_is_retried_as_often_as_asked(registry, docker_host):
    image = registry.publish(secrets.token_hex(8))
    registry.dead = True
    with Experiment("pulls", log_level="ERROR") as experiment:
        experiment.add(sh("true"), name="once", executor=DockerExecutor(container_image=image))
        experiment.add(sh("cat /says"), name="again", executor=DockerExecutor(container_image=image, retries=5))
        experiment.run()
        wait_until(lambda: state(experiment, "once") == "FAILED", "the failure")
        assert reason(experiment, "once").startswith(f"image: {image} cannot be pulled: ")
        wait_until(lambda: "for attempt 1" in reason(experiment, "again"), "the second attempt")
        registry.dead = False
    assert state(experiment, "again") == State.SUCCEEDED.value
