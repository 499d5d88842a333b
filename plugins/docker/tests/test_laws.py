"""DockerExecutor keeps the laws, on a real engine."""

from __future__ import annotations

import json

import pytest
from nemorun_devkit import ExecutorLaws
from nemorun_devkit.kit import Kit
from nemorun_docker import DockerExecutor

from nemorun_core import Document

from .conftest import IMAGE, SMALL, Between, clear

pytestmark = pytest.mark.docker


class OurKit(Kit):
    """The engine is shared with tests that run beside: the other experiment of a test has a nonce of its own, too."""

    def make(self, *programs, nonce="", **options):
        return super().make(*programs, nonce=self.mark if nonce else "", **options)


class TestDockerExecutor(ExecutorLaws):
    @pytest.fixture
    def executor(self, between: Between, tmp_path):
        return DockerExecutor(container_image=IMAGE, volumes=[f"{tmp_path}:{tmp_path}"], python="python3", pull="never")

    @pytest.fixture
    def kit(self, executor, tmp_path, shared_folder, engine):
        kit = OurKit(executor, tmp_path, shared_folder, self.patience_seconds)
        yield kit
        kit.close()
        for nonce in (kit.nonce, kit.mark):
            clear(engine, nonce)

    @pytest.fixture
    def unhonoured_executors(self):
        bad: list[dict[str, object]] = [
            {"container_image": ""},
            {"volumes": ["data"]},
            {"volumes": ["/a:b"]},
            {"gpus": "some"},
            {"gpus": "1", "num_gpus": 1},
            {"cpus": 0},
            {"memory": "lots"},
            {"shm_size": "-1"},
            {"ulimits": ["memlock"]},
            {"user": "a b"},
            {"pull": "sometimes"},
            {"keep": "some"},
            {"healthcheck": {"interval_seconds": 1}},
            {"additional_kwargs": {"restart_policy": {"Name": "always"}}},
            {"additional_kwargs": {"no_such_option": 1}},
            {"additional_kwargs": {"labels": {"nemorun.key": "x"}}},
            {"outputs": ["*.pt"]},
        ]
        return [DockerExecutor(**{"container_image": SMALL, **fields}) for fields in bad]

    @pytest.fixture
    def refused_executor(self, executor):
        refused = executor.clone()
        refused.cpus = 10_000
        return refused

    @pytest.fixture
    def scheduler_down(self, between: Between):
        return between.broken

    @pytest.fixture
    def answer_lost(self, between: Between):
        return lambda: _Breaking(between, "lose")

    @pytest.fixture
    def accepted_late(self, between: Between):
        return lambda: _Breaking(between, "hold")

    @pytest.fixture
    def scheduler_full(self, between: Between):
        """The words are those of an engine whose bridge is full, which takes 253 containers."""
        return lambda: _Breaking(between, "refuse", ("/start ", "no available IPv4 addresses on this network's pools"))

    @pytest.fixture
    def restart_scheduler(self):
        pytest.skip("declared: test_engine.py restarts an engine of its own")

    @pytest.fixture
    def requeue(self):
        pytest.skip("declared: with the restart policy `no` an engine starts nothing again")

    @pytest.fixture
    def expire(self, engine):
        def forget(handle):
            found = engine.request("GET", f"/containers/{handle}/json")
            if found.value["State"]["Running"]:
                pytest.skip("declared: an engine cannot forget a container that runs")
            assert not engine.request("DELETE", f"/containers/{handle}", force="true").is_refusal

        return forget

    @pytest.fixture
    def namesake(self, engine):
        made = []

        def put(job):
            body = {"Image": SMALL, "Cmd": ["sleep", "60"], "Labels": {"nemorun.key": "somebody/else/0"}}
            made.append(engine.request("POST", "/containers/create", body, name=job.key.slug()).value["Id"])
            assert not engine.request("POST", f"/containers/{made[-1]}/start").is_refusal
            return lambda: engine.request("GET", f"/containers/{made[-1]}/json").value["State"]["Running"]

        yield put
        for container in made:
            engine.request("DELETE", f"/containers/{container}", force="true")

    @pytest.fixture
    def count_queries(self, between: Between):
        return lambda: len(between.requests)

    @pytest.mark.nightly
    @pytest.mark.timeout(600)  # an engine of two cores starts some five containers a second
    def test_e12_a_poll_of_a_thousand_jobs_costs_as_much_as_one_of_one(self, kit, count_queries):
        super().test_e12_a_poll_of_a_thousand_jobs_costs_as_much_as_one_of_one(kit, count_queries)

    @pytest.fixture
    def submitted_documents(self, between: Between):
        def given(job):
            name = job.key.slug()
            return [Document(f"container {name}", json.dumps(between.made[name], indent=1, ensure_ascii=False))]

        return given

    @pytest.fixture
    def kept_by_scheduler(self, engine):
        def kept():
            for listed in engine.request("GET", "/containers/json", all="true").value:
                found = engine.request("GET", f"/containers/{listed['Id']}/json")
                yield json.dumps([listed, found.value]).encode()

        return kept


class _Breaking:
    """A context in which one kind of request is broken."""

    def __init__(self, between: Between, how: str, what: object = "/start ") -> None:
        self._between, self._how, self._what = between, how, what

    def __enter__(self) -> None:
        setattr(self._between, self._how, self._what)

    def __exit__(self, *error: object) -> None:
        setattr(self._between, self._how, "")
        self._between.let_go()
