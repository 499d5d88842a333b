"""How jobs end on a real engine, and why: each cause has words of its own."""

from __future__ import annotations

import os
import socket
import tarfile
import threading
from pathlib import Path

import attrs
import pytest
from nemorun_devkit.kit import Kit
from nemorun_docker import DockerExecutor

from nemorun_core import Deferred, ReasonKind, Rejected, Secret, State, TransientError, UsageError, base_path

from .conftest import IMAGE, SMALL, clear, docker, remains

pytestmark = pytest.mark.docker

TOKEN = {"TOKEN": Secret.from_env("SOURCE")}


@pytest.fixture
def kit(docker_host, engine, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    executor = DockerExecutor(container_image=SMALL, volumes=[f"{shared}:{shared}"], pull="never")
    kit = Kit(executor, tmp_path, shared, 30.0)
    yield kit
    kit.close()
    clear(engine, kit.nonce)


def refused(kit, **fields):
    """Submit a job that must be refused for good, and check that nothing is left of it."""
    job = kit.make("echo ran >>runs", cwd=kit.shared, executor=kit.options(**fields))
    answer = kit.answer(job)
    assert isinstance(answer, Rejected), answer
    assert kit.find(job) == {}
    assert not list(Path(job.folder).glob("*"))
    assert kit.lines("runs") == []
    return answer.reason


def test_an_image_without_the_tasks_shell_is_a_bad_command(kit):
    member = kit.run(["bash", "-c", "exit 0"])
    assert (member.state, member.exit_code) == (State.FAILED, 127)
    assert member.reason.kind is ReasonKind.BAD_COMMAND


def test_a_program_that_cannot_be_executed_is_a_bad_command(kit):
    member = kit.run(["/etc/passwd"])
    assert (member.exit_code, member.reason.kind) == (126, ReasonKind.BAD_COMMAND)


def test_a_job_over_its_memory_is_out_of_memory(kit):
    """The kernel kills the program, the shim writes down how it ended, and the engine knows why."""
    executor = kit.options(memory="16m", additional_kwargs={"memswap_limit": "16m"})
    member = kit.run("tail /dev/zero", executor=executor)
    assert (member.state, member.exit_code) == (State.FAILED, 137)
    assert member.reason.kind is ReasonKind.OUT_OF_MEMORY


def test_a_killed_program_within_its_memory_is_a_signal(kit):
    member = kit.run("kill -KILL $$", executor=kit.options(memory="64m"))
    assert (member.exit_code, member.reason.kind) == (137, ReasonKind.SIGNAL)


def test_a_container_that_was_killed_from_outside_is_a_signal(kit):
    handle = kit.start("echo up; sleep 60")
    kit.shows(handle)
    docker("kill", handle)
    member = kit.member(handle)
    assert (member.state, member.exit_code, str(member.reason)) == (State.FAILED, 137, "signal 9 (SIGKILL)")


def test_a_container_that_was_stopped_from_outside_notes_the_signal(kit):
    handle = kit.start("trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done")
    kit.shows(handle)
    docker("stop", handle)
    member = kit.member(handle)
    assert (member.state, member.exit_code, member.signals) == (State.FAILED, 5, ("TERM",))


@pytest.mark.parametrize("handler", ["trap 'exit 0' TERM;", ""])
def test_a_program_is_stopped_with_and_without_a_handler(kit, handler):
    """As the first process of a container it would not hear of TERM without one: the shim is the first."""
    handle = kit.start(f"{handler} echo up; while :; do sleep 0.02; done", executor=kit.options(grace_seconds=600.0))
    kit.shows(handle)
    kit.backend.cancel([handle])
    member = kit.member(handle)
    assert member.exit_code == (0 if handler else 143)
    assert "TERM" in member.signals


def test_a_container_that_was_removed_while_it_ran_is_not_guessed_about(kit):
    """The engine saw it end."""
    handle = kit.start("echo up; sleep 60")
    kit.shows(handle)
    docker("rm", "-f", handle)
    member = kit.member(handle)
    assert (member.state, member.exit_code) == (State.FAILED, 137)


def test_a_missing_image_is_refused_with_what_to_do(kit):
    reason = refused(kit, container_image="test/nosuch:1")
    assert reason.kind is ReasonKind.IMAGE
    assert "docker pull test/nosuch:1" in reason.detail


def test_an_image_that_cannot_be_pulled_is_refused(kit):
    reason = refused(kit, container_image="127.0.0.1:1/nosuch:1", pull="missing")
    assert reason.kind is ReasonKind.IMAGE
    assert "cannot be pulled" in reason.detail


def test_an_image_without_a_shell_is_refused(kit, engine, tmp_path):
    (tmp_path / "empty").mkdir()
    docker("import", _tar(tmp_path / "empty"), "test/empty")
    try:
        reason = refused(kit, container_image="test/empty")
        assert reason.kind is ReasonKind.IMAGE
        assert "/bin/sh" in reason.detail
    finally:
        docker("rmi", "test/empty")


def _tar(folder):
    (folder / "file").write_text("x")
    with tarfile.open(f"{folder}.tar", "w") as tar:
        tar.add(folder, "/")
    return f"{folder}.tar"


def test_a_mount_of_what_is_not_there_is_refused_and_not_made(kit):
    reason = refused(kit, volumes=[f"{kit.shared}:{kit.shared}", f"{kit.folder}/nosuch:/data"])
    assert "bad mount" in reason.detail
    assert "nosuch" in reason.detail
    assert not (kit.folder / "nosuch").exists()


def test_a_port_in_use_is_refused(kit):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reason = refused(kit, additional_kwargs={"ports": {80: ("127.0.0.1", port)}})
    assert "port in use" in reason.detail


@pytest.mark.parametrize("fields", [{"gpus": "all"}, {"num_gpus": 1}, {"runtime": "nvidia"}])
def test_a_gpu_without_a_driver_is_refused(kit, fields):
    assert "no GPU driver" in refused(kit, **fields).detail


@pytest.mark.parametrize(
    "fields",
    [
        {"cpus": 10_000},
        {"memory": "1m"},
        {"additional_kwargs": {"cpuset_cpus": "9999"}},
        {"ulimits": ["nofile=9999999"], "runtime": "runc"},  # more than the kernel gives to anybody
    ],
)
def test_limits_that_the_machine_does_not_give_are_refused(kit, fields):
    reason = refused(kit, **fields)
    assert reason.kind is ReasonKind.LIMIT, reason
    assert "more than this machine gives" in reason.detail


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"network": "nosuch"}, "network nosuch not found"),
        ({"network": "container:nosuch"}, "No such container: nosuch"),
        ({"ipc_mode": "container:nosuch"}, "No such container: nosuch"),
        ({"user": "nosuch"}, "unable to find user nosuch"),
        ({"additional_kwargs": {"devices": ["/dev/nosuch"]}}, "/dev/nosuch"),
    ],
)
def test_what_is_not_there_is_refused_in_the_engines_words(kit, fields, words):
    reason = refused(kit, **fields)
    assert reason.kind is ReasonKind.REJECTED
    assert reason.detail.startswith("the Docker engine: ")
    assert words in reason.detail


def test_limits_as_frameworks_recommend_them_are_taken(kit):
    ulimits = ["memlock=-1", "stack=67108864"]
    handle = kit.start("ulimit -s", executor=kit.options(ulimits=ulimits, shm_size="8g", ipc_mode="host"))
    kit.end(handle)
    assert kit.log(handle) == b"65536\n"


def test_an_image_of_another_architecture_is_told_in_the_engines_words(kit, engine, tmp_path):
    """Its shell is no program of this machine."""
    shell = tmp_path / "image" / "bin" / "sh"
    shell.parent.mkdir(parents=True)
    shell.write_bytes(b"\x7fELF of some other machine")
    shell.chmod(0o755)
    docker("import", _tar(tmp_path / "image"), "test/foreign")
    try:
        member = kit.member(kit.start("exit 0", executor=kit.options(container_image="test/foreign")))
        assert (member.state, member.reason.kind) == (State.FAILED, ReasonKind.REJECTED)
        assert "exec format error" in member.reason.detail
    finally:
        clear(engine, kit.nonce)
        docker("rmi", "test/foreign")


def test_a_container_that_was_restarted_from_outside_runs_its_program_once(kit):
    handle = kit.start("echo ran >>runs; echo up; sleep 60", cwd=kit.shared)
    kit.shows(handle)
    docker("restart", "-t", "5", handle)
    member = kit.member(handle)
    assert (member.state, member.exit_code, member.signals) == (State.FAILED, 143, ("TERM",))
    kit.settle()
    assert kit.lines("runs") == ["ran"]


def test_a_container_that_was_paused_from_outside_can_be_cancelled(kit):
    handle = kit.start("echo up; sleep 60", executor=kit.options(grace_seconds=600.0))
    kit.shows(handle)
    docker("pause", handle)
    kit.backend.cancel([handle])
    assert kit.member(handle).exit_code == 143


def test_addresses_that_are_used_up_put_a_job_off(kit, engine):
    """A network of four addresses has room for one container beside the engine's own."""
    network = f"small-{kit.nonce}"
    docker("network", "create", "--subnet", "172.28.255.0/30", network)
    try:
        first = kit.start(f"echo up; {kit.gate()}", executor=kit.options(network=network))
        kit.shows(first)
        second = kit.make("exit 3", executor=kit.options(network=network))
        answer = kit.answer(second)
        assert isinstance(answer, Deferred), answer
        assert answer.reason.kind is ReasonKind.LIMIT
        assert kit.find(second) == {}
        kit.open_gate()
        kit.end(first)
        kit.backend.release([first])
        assert kit.member(kit.take(second)).exit_code == 3
    finally:
        for container in docker(
            "network", "inspect", network, "-f", "{{range $k, $v := .Containers}}{{$k}} {{end}}"
        ).split():
            docker("rm", "-f", container)
        docker("network", "rm", network)


def test_a_deferred_job_keeps_back_no_job_that_runs(kit, engine):
    """It is answered last, so that whatever started by then is known."""
    network = f"small-{kit.nonce}"
    docker("network", "create", "--subnet", "172.28.254.0/30", network)
    try:
        options = kit.options(network=network)
        jobs = [kit.make(f"echo up; {kit.gate()}; exit 2", executor=options) for _ in range(2)]
        jobs.append(kit.make("exit 4"))
        answers = kit.answers(jobs)
        kinds = [type(answers[job.key]).__name__ for job in jobs]
        assert sorted(kinds[:2]) == ["Accepted", "Deferred"]
        assert kinds[2] == "Accepted"
        assert list(answers)[-1] in (jobs[0].key, jobs[1].key)
        kit.open_gate()
        for job, kind in zip(jobs, kinds, strict=True):
            if kind == "Accepted":
                kit.end(answers[job.key].handle)
    finally:
        clear(engine, kit.nonce)
        docker("network", "rm", network)


def test_the_records_and_the_log_outlive_the_container(kit):
    job = kit.make("echo words; exit 7")
    handle = kit.take(job)
    kit.end(handle)
    docker("rm", "-f", handle)
    kit.reopen()
    assert kit.member(kit.adopt(job)).exit_code == 7
    assert kit.log(kit.find(job)[job.key]) == b"words\n"


@pytest.mark.parametrize(
    ("keep", "code", "kept"), [("none", 1, False), ("failed", 1, True), ("failed", 0, False), ("all", 0, True)]
)
def test_containers_are_kept_as_the_executor_says(kit, engine, keep, code, kept):
    handle = kit.start(f"exit {code}", executor=kit.options(keep=keep))
    kit.end(handle)
    kit.backend.release([handle])
    assert bool(remains(engine, kit.nonce)) is kept


def test_a_container_that_was_made_and_not_started_is_started_by_the_next_driver(kit):
    """Its driver died between the two."""
    job = kit.make("echo ran >>runs; exit 3", cwd=kit.shared)
    kit.backend._open([job])
    kit.backend._placer._make(job)
    assert kit.member(kit.adopt(job)).exit_code == 3
    assert kit.lines("runs") == ["ran"]


def test_a_container_that_was_removed_before_its_start_is_made_again(kit):
    """By somebody who prunes: it is in doubt, and then surely not there."""
    job = kit.make("exit 3")
    kit.backend._open([job])
    [made] = kit.backend._placer._make(job)
    docker("rm", made.id)
    with pytest.raises(TransientError, match="removed before it was started"):
        kit.backend._placer._start(made.id)
    assert kit.find(job) == {}
    assert kit.member(kit.take(job)).exit_code == 3


def test_a_container_that_is_about_to_start_is_not_started_twice(kit):
    """Its driver died, and the engine has not come to what that asked for last."""
    job = kit.make("echo ran >>runs; exit 3", cwd=kit.shared)
    kit.backend._open([job])
    [made] = kit.backend._placer._make(job)
    other = threading.Thread(target=kit.backend._placer._start, args=(made.id,))
    other.start()
    try:
        assert kit.member(kit.adopt(job)).exit_code == 3
    finally:
        other.join()
    kit.settle()
    assert kit.lines("runs") == ["ran"]


def test_a_container_that_was_made_is_started_by_one_who_has_not_its_secrets(kit, monkeypatch):
    """Whoever asks for the status may do so from another terminal."""
    monkeypatch.setenv("SOURCE", "word")
    job = kit.make("test $TOKEN = word && exit 3", environment=TOKEN)
    kit.backend._open([job])
    kit.backend._placer._make(job)
    monkeypatch.delenv("SOURCE")
    assert kit.member(kit.adopt(job)).exit_code == 3


def test_a_member_whose_secret_is_not_here_waits_for_a_driver_that_has_it(kit, engine, monkeypatch):
    """Of a group only a part was made."""
    monkeypatch.setenv("SOURCE", "word")
    job = kit.make("exit 3", "exit 4", environment=TOKEN)
    kit.backend._open([job])
    first, second = kit.backend._placer._make(job)
    assert kit.backend._placer._start(first.id) == ""
    docker("rm", "-f", second.id)
    monkeypatch.delenv("SOURCE")
    kit.reopen()
    handle = kit.find(job)[job.key]
    seen = kit.poll(handle)
    assert "SOURCE" in str(seen.reason) or not seen.members
    monkeypatch.setenv("SOURCE", "word")
    kit.reopen()
    kit.find(job)
    assert [member.exit_code for member in kit.end(handle).members] == [3, 4]


def test_a_job_that_another_driver_started_is_seen_to_run_by_one_who_submits_it(kit):
    job = kit.make(f"echo up; {kit.gate()}; exit 3")
    kit.shows(kit.take(job))
    kit.reopen()
    assert kit.poll(kit.take(job)).members[0].state is State.RUNNING
    kit.open_gate()
    assert kit.member(kit.find(job)[job.key]).exit_code == 3


def test_an_end_of_which_no_event_told_is_found_in_the_list(kit, monkeypatch):
    """An engine drops what a driver does not read, as one that was stopped."""
    handle = kit.start(f"echo up; {kit.gate()}; exit 3")
    kit.shows(handle)
    kit.poll(handle)
    with monkeypatch.context() as deaf:
        deaf.setattr(type(kit.backend._containers), "_happened", lambda *ignored: None)
        kit.open_gate()
        kit.until(lambda: docker("inspect", "-f", "{{.State.Status}}", handle) == "exited", "the end")
        kit.backend.wait([handle], 0.1)
        assert kit.backend.poll([handle])[handle].members[0].state is State.RUNNING
        deaf.setattr("nemorun_docker.containers._AGAIN_SECONDS", -1.0)
        assert handle in kit.backend.wait([handle], 0.1)
        assert kit.backend.poll([handle])[handle].members[0].exit_code == 3


@pytest.mark.parametrize("image", [SMALL, IMAGE, "test/bash"])
def test_the_shim_works_in_every_shell(kit, engine, image):
    """ash of busybox, dash, and bash."""
    if engine.request("GET", f"/images/{image}/json").is_refusal:
        pytest.skip(f"{image} is not made: tests/clusters/docker/images bash")
    executor = kit.options(container_image=image)
    for _ in range(3):
        handle = kit.start("trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done", executor=executor)
        kit.shows(handle)
        kit.backend.cancel([handle])
        member = kit.member(handle)
        assert (member.exit_code, member.signals) == (5, ("TERM",))


@pytest.mark.parametrize("user", [None, "0", "nobody", "1234:1234"])
def test_files_of_the_job_belong_to_the_caller(kit, user):
    job = kit.make("id -u; echo x >&2; exit 3", executor=kit.options(user=user, separate_stderr=True))
    handle = kit.take(job)
    assert kit.member(handle).exit_code == 3
    uid = {None: b"0", "0": b"0", "nobody": b"65534", "1234:1234": b"1234"}[user]
    assert kit.log(handle) == uid + b"\n"
    base = base_path(job.folder, 0, 0, 0)
    names = {name: os.stat(f"{base}.{name}") for name in ("start", "outcome", "out", "err")}
    assert {facts.st_uid for facts in names.values()} == {os.geteuid()}


def test_a_user_who_is_nobody_here_reads_secrets_and_support(kit, monkeypatch):
    monkeypatch.setenv("SOURCE", "word")
    executor = kit.options(user="nobody")
    handle = kit.start('printf %s "$TOKEN" | tr a-z b-za', executor=executor, environment=TOKEN)
    assert kit.member(handle).exit_code == 0
    assert kit.log(handle) == b"xpse"


def test_secrets_are_gone_when_the_job_has_ended(kit, monkeypatch):
    monkeypatch.setenv("SOURCE", "word")
    handle = kit.start(f"echo up; {kit.gate()}", environment=TOKEN)
    kit.shows(handle)
    path = kit.backend._secrets.path(handle)
    assert path.startswith(("/dev/shm/", os.environ.get("XDG_RUNTIME_DIR") or "/dev/shm/"))
    kit.open_gate()
    kit.end(handle)
    assert not os.path.exists(path)


def test_the_secrets_that_a_dead_driver_left_are_removed_by_the_next(kit, monkeypatch):
    monkeypatch.setenv("SOURCE", "word")
    job = kit.make(f"echo up; {kit.gate()}; touch over", cwd=kit.shared, environment=TOKEN)
    handle = kit.take(job)
    kit.shows(handle)
    path = kit.backend._secrets.path(handle)
    kit.leave()
    kit.open_gate()
    kit.until((kit.shared / "over").exists, "the end")
    kit.adopt(job)
    kit.end(handle)
    assert not os.path.exists(path)


def test_the_entrypoint_stands_before_the_command(kit):
    handle = kit.start(["echo", "a  b"], executor=kit.options(entrypoint=["env", "X=1"]))
    kit.end(handle)
    assert kit.log(handle) == b"a  b\n"


def test_without_a_volume_a_job_runs_in_the_folder_of_the_image(kit):
    executor = kit.options(volumes=[])
    handle = kit.start("pwd", executor=executor)
    kit.end(handle)
    assert kit.log(handle) == b"/\n"
    handle = kit.start("pwd", executor=kit.options(volumes=[], additional_kwargs={"working_dir": "/tmp"}))
    kit.end(handle)
    assert kit.log(handle) == b"/tmp\n"


def test_limits_and_options_arrive(kit, engine):
    executor = kit.options(
        cpus=1.5,
        memory="64m",
        shm_size="32m",
        ulimits=["nofile=100:200"],
        ipc_mode="private",
        privileged=True,
        healthcheck={"test": "true"},
        additional_kwargs={"pids_limit": 50, "hostname": "named"},
    )
    handle = kit.start("hostname; ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'", executor=executor)
    kit.end(handle)
    assert kit.log(handle).split() == [b"named", b"100", b"32768"]
    host = engine.request("GET", f"/containers/{handle}/json").value["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (1_500_000_000, 64 << 20, 50)


def test_a_group_meets_on_a_network_of_its_own_which_is_removed(kit, engine):
    ping = f"{kit.gate()}; ping -c 1 -W 5 $NEMORUN_MEMBER_0_HOST && ping -c 1 -W 5 $NEMORUN_MEMBER_1_HOST; code=$?"
    job = kit.make(*(f"{ping}; touch m{n}; {kit.gate('m0')}; {kit.gate('m1')}; exit $code" for n in range(2)))
    handle = kit.take(job)
    kit.open_gate()
    assert len([name for name in remains(engine, kit.nonce) if not name.startswith("/")]) == 1
    assert [member.exit_code for member in kit.end(handle).members] == [0, 0]
    kit.backend.release([handle])
    assert remains(engine, kit.nonce) == []


def test_a_group_of_which_one_is_refused_leaves_nothing(kit, engine):
    job = kit.make("echo up; sleep 60", "exit 0")
    bad = kit.options(gpus="all")
    job = attrs.evolve(job, executors=(kit.executor, bad))
    answer = kit.answer(job)
    assert isinstance(answer, Rejected)
    assert "no GPU driver" in answer.reason.detail
    assert remains(engine, kit.nonce) == []
    assert kit.find(job) == {}


def test_a_group_of_which_a_part_was_started_is_completed_by_the_next_driver(kit, engine):
    """Its driver died in between."""
    job = kit.make(*(f"echo {number} >>runs; echo up; {kit.gate()}" for number in range(2)), cwd=kit.shared)
    placer = kit.backend._placer
    kit.backend._open([job])
    made = placer._make(job)
    assert placer._start(made[0].id) == ""
    kit.reopen()
    handle = kit.adopt(job)
    for number in range(2):
        kit.until(lambda: not kit.poll(handle).is_over and f"{number}" in kit.lines("runs"), "the start")  # noqa: B023 - called at once
    kit.open_gate()
    assert [member.exit_code for member in kit.end(handle).members] == [0, 0]
    assert sorted(kit.lines("runs")) == ["0", "1"]


def test_the_doctor_is_told_which_engine_answers(kit, engine):
    assert kit.backend.check() == f"Docker Engine {docker('version', '-f', '{{.Server.Version}}')} at {engine.path}"


def test_the_doctor_is_told_that_none_answers(kit, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nosuch.sock")
    with pytest.raises(UsageError, match="found none"):
        kit.backend.check()
    (tmp_path / "nosuch.sock").touch()
    with pytest.raises(TransientError, match="does not answer"):
        kit.backend.check()
