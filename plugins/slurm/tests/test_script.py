"""The batch script: a dozen of them as they are, and what arrives at the program whatever its words are.

`python plugins/slurm/tests/test_script.py` writes the golden files anew.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.script import Layout, array_script, array_task, batch_script, job_name, secrets_text

import nemorun_core
from nemorun_core import Key, Member, Secret, Submission, UsageError

GOLDEN = Path(__file__).with_name("golden")
SUPPORT = Path(nemorun_core.__file__).parent / "engine"
LAYOUT = Layout(folder="/home/me/exp/train", support="/home/me/exp/support")
# Stands at srun's own boundary: drops its options, and starts the command as task 0 of 1.
SRUN = """#!/bin/sh
while case $1 in -*) true ;; *) false ;; esac; do shift; done
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_STEP_NUM_NODES=1
exec "$@"
"""
# Stands for Apptainer: says how it was called, takes what is set from outside over the image's own, runs the program.
APPTAINER = """#!/bin/sh
echo "$1 $2 $3" >&2
while [ "$1" != --pwd ]; do shift; done
cd "$2" && shift 3
export STAGE=image TOKEN=image
[ -z "${APPTAINERENV_STAGE+x}" ] || STAGE=$APPTAINERENV_STAGE TOKEN=$APPTAINERENV_TOKEN
exec "$@"
"""


def submission(*executors, program=("python3", "train.py"), environment=None, key=None):
    return Submission(
        key=key or Key("0123456789abcdef", "train", 0),
        members=tuple(
            Member(
                argv=program,
                environment={"NEMORUN_ATTEMPT": "0", "NEMORUN_MEMBER": str(number), **(environment or {})},
                cwd="/home/me/project",
            )
            for number in range(len(executors))
        ),
        executors=executors,
        folder=LAYOUT.folder,
        support=LAYOUT.support,
    )


PYXIS = SlurmExecutor(
    nodes=1,
    gpus_per_node=8,
    container_image="images#team/pytorch:24.05-py3",
    container_mounts=["/data:/data:ro"],
    container_env=["LD_LIBRARY_PATH"],
    srun_args=["--no-container-mount-home"],
)
JOBS = {
    "plain": submission(SlurmExecutor()),
    "ranks": submission(SlurmExecutor(nodes=2, ntasks_per_node=8, cpus_per_task=4, gpus_per_node=8, exclusive=True)),
    "launcher": submission(
        SlurmExecutor(nodes=2, ntasks_per_node=8, cpus_per_task=4, gpus_per_node=8, launcher="torchrun")
    ),
    "options": submission(
        SlurmExecutor(
            account="team",
            partition="batch,short",
            time="2:30:00",
            comment='it\'s "the" job # 1',
            constraint="a100&nvlink",
            signal="USR1@120",
            job_name_prefix="me.",
            additional_parameters={"mail_user": "me@cluster", "spread_job": True},
        )
    ),
    "requeue": submission(SlurmExecutor(requeue=3, timeout_seconds=3600.0)),
    "setup": submission(SlurmExecutor(setup_lines="module load cuda/12.4\nsource venv/bin/activate\n")),
    "secrets": submission(SlurmExecutor(), environment={"HF_TOKEN": Secret.from_env("HF_TOKEN"), "STAGE": "dev"}),
    "pyxis": submission(PYXIS, environment={"STAGE": "dev"}),
    "apptainer": submission(
        attrs.evolve(PYXIS, container_image="torch.sif", container_runtime="apptainer", srun_args=[]),
        environment={"STAGE": "dev", "HF_TOKEN": Secret.from_env("HF_TOKEN")},
    ),
    "group-apart": submission(*[SlurmExecutor(nodes=2, ntasks_per_node=4)] * 2),
    "group-packed": submission(*[SlurmExecutor(cpus_per_task=2, mem_per_cpu="2G")] * 3),
    "group-heterogeneous": submission(
        SlurmExecutor(partition="cpu", mem="8G"), SlurmExecutor(partition="gpu", nodes=4, gpus_per_node=8)
    ),
    "group-shared": submission(*[SlurmExecutor(nodes=1, het_group_indices=[0, 1, 1])] * 3),
    "hostile": submission(
        SlurmExecutor(separate_stderr=True, env_vars={}),
        program=("a 'b' \"c\"", "$HOME\n`id`", "", "-x"),
        environment={"UID": "7", "PATH": "/nowhere", "TEXT": "a\n'b'\\"},
        key=Key("0123456789abcdef", "hetjob\n☃ '$HOME'", 2),
    ),
}


def rendered(name):
    return batch_script(JOBS[name], LAYOUT, secrets="/home/me/exp/secrets/train.0")


@pytest.mark.parametrize("name", JOBS)
def test_the_script_is_what_it_was(name):
    assert rendered(name) == (GOLDEN / f"{name}.sbatch").read_text()


@pytest.mark.parametrize("name", JOBS)
def test_bash_understands_the_script(name):
    done = subprocess.run(["bash", "-n"], input=rendered(name), text=True, capture_output=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_golden_file_is_of_a_job():
    assert {path.stem for path in GOLDEN.iterdir()} == {*JOBS, "array"}


@pytest.fixture(scope="module")
def commands() -> Iterator[str]:
    """A folder to stand first on PATH."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("srun", SRUN), ("apptainer", APPTAINER), ("scontrol", "#!/bin/sh\necho n1\n")):
            Path(folder, name).write_text(text)
            Path(folder, name).chmod(0o755)
        yield folder


def run(job: Submission, commands: str, *, secrets: str | None = None, **variables: str) -> tuple[int, bytes, bytes]:
    """Run a job's script as Slurm would, without Slurm; return exit code, the log of member 0 and what bash said."""
    with tempfile.TemporaryDirectory() as folder:
        job = attrs.evolve(job, members=tuple(attrs.evolve(member, cwd=folder) for member in job.members))
        script = batch_script(job, Layout(folder=folder, support=str(SUPPORT)), secrets=secrets)
        done = subprocess.run(
            ["bash"],
            input=script.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=20,
            env={**os.environ, "PATH": f"{commands}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
            | variables,
        )
        log = Path(folder, f"{job.key.attempt}.{variables.get('SLURM_RESTART_COUNT', 0)}.0.out")
        return done.returncode, log.read_bytes() if log.exists() else b"", done.stderr


def run_task(job: Submission, commands: str, *, before: int = 0, **variables: str) -> tuple[int, bytes, bytes]:
    """Run a job as a task of an array, of which so many others come first; return exit code, log and batch output."""
    with tempfile.TemporaryDirectory() as folder:
        others = [submission(SlurmExecutor(), program=("false", f"other\n{number}")) for number in range(before)]
        layout = Layout(folder=f"{folder}/the job's", support=str(SUPPORT))
        Path(layout.folder).mkdir()
        job = attrs.evolve(job, members=(attrs.evolve(job.members[0], cwd=folder),))
        tasks = Path(folder, "a b.tasks")
        lines = [array_task(one, layout) for one in (*others, job, *others)]
        tasks.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
        assert tasks.read_bytes().count(b"\n") == len(lines)
        done = subprocess.run(
            ["bash"],
            input=array_script(job, name="a", mark="# m", size=len(lines), tasks=str(tasks)).encode(),
            capture_output=True,
            timeout=20,
            env={"PATH": f"{commands}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
            | {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": str(before), **variables},
        )
        found = {path.name: path.read_bytes() for path in Path(layout.folder).iterdir()}
        base = f"{job.key.attempt}.{variables.get('SLURM_RESTART_COUNT', 0)}.0"
        return done.returncode, found.get(f"{base}.out", b""), done.stderr + found.get(f"{job.key.attempt}.batch", b"")


WORD = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=30)
NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not name.startswith("NEMORUN_") and name not in ("IFS", "OLDPWD", "OPTIND", "PPID", "PWD", "PATH", "_")
)


@settings(max_examples=25)
@given(words=st.lists(WORD, max_size=4))
def test_any_words_arrive_at_the_program(commands, words):
    echo = ("/bin/sh", "-c", 'for word; do printf "%s\\0" "$word"; done', "sh", *words)
    code, log, _ = run(submission(SlurmExecutor(), program=echo), commands)
    assert (code, log) == (0, b"".join(word.encode() + b"\0" for word in words))


@settings(max_examples=25)
@given(variables=st.dictionaries(NAME, WORD, max_size=4))
def test_any_variables_arrive_at_the_program(commands, variables):
    code, log, _ = run(submission(SlurmExecutor(), program=("/usr/bin/env", "-0"), environment=variables), commands)
    seen = dict(line.partition(b"=")[::2] for line in log.split(b"\0"))
    assert code == 0
    assert {name: seen.get(name.encode()) for name in variables} == {
        name: value.encode() for name, value in variables.items()
    }


@settings(max_examples=25)
@given(words=st.lists(WORD, max_size=4), variables=st.dictionaries(NAME, WORD, max_size=2), before=st.integers(0, 5))
def test_any_words_and_variables_arrive_at_a_task_of_an_array(commands, words, variables, before):
    text = 'for word; do printf "%s\\0" "$word"; done; exec env -0'
    job = submission(SlurmExecutor(), program=("/bin/sh", "-c", text, "sh", *words), environment=variables)
    code, log, said = run_task(job, commands, before=before)
    assert (code, said) == (0, b"")
    expected = b"".join(word.encode() + b"\0" for word in words)
    assert log.startswith(expected)
    seen = log.removeprefix(expected).split(b"\0")
    assert [name for name, value in variables.items() if f"{name}={value}".encode() not in seen] == []


def test_a_task_of_an_array_has_output_exit_code_and_restarts_of_its_own(commands):
    executor = SlurmExecutor(setup_lines="echo set up >&2", requeue=3)
    job = submission(executor, program=("sh", "-c", "echo $NEMORUN_ATTEMPT; exit 7"))
    assert run_task(job, commands, before=2, SLURM_RESTART_COUNT="2") == (7, b"2\n", b"set up\n")


def test_the_last_restart_of_a_task_forbids_more_to_that_task_alone(commands, tmp_path):
    """The last task of an array has the array's own number as SLURM_JOB_ID."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >&2\n')
    (tmp_path / "scontrol").chmod(0o755)
    job = submission(SlurmExecutor(requeue=1), program=("true",))
    _, _, said = run_task(job, f"{tmp_path}:{commands}", before=1, SLURM_RESTART_COUNT="1")
    assert said == b"update JobId=5_1 Requeue=0\n"


def test_a_task_whose_line_is_not_there_runs_nothing(commands):
    job = submission(SlurmExecutor(), program=("echo", "ran"))
    assert run_task(job, commands, SLURM_ARRAY_TASK_ID="1")[:2] == (1, b"")


def test_names_that_a_shell_has_itself_arrive_at_the_program(commands):
    names = ["UID", "SECONDS", "RANDOM", "HOSTNAME", "BASHOPTS", "PS4", "base", "suffix"]
    job = submission(SlurmExecutor(), program=("/usr/bin/env",), environment=dict.fromkeys(names, "mine"))
    seen = run(job, commands)[1].decode().splitlines()
    assert [name for name in names if f"{name}=mine" not in seen] == []


def test_a_path_of_the_programs_own_does_not_hide_slurm(commands):
    job = submission(SlurmExecutor(), program=("/bin/echo", "here"), environment={"PATH": "/nowhere"})
    assert run(job, commands)[:2] == (0, b"here\n")


def test_the_programs_exit_code_is_the_scripts(commands):
    assert run(submission(SlurmExecutor(), program=("sh", "-c", "exit 7")), commands)[0] == 7


@pytest.mark.parametrize(("text", "code"), [("exit 0", 1), ("exit 3", 3), ("false || exit", 1)])
def test_setup_lines_that_end_the_script_are_no_success(commands, text, code):
    job = submission(SlurmExecutor(setup_lines=text), program=("echo", "ran"))
    assert run(job, commands)[:2] == (code, b"")


def test_strict_setup_lines_do_not_cut_off_the_members(commands):
    executor = SlurmExecutor(setup_lines="set -euo pipefail\nIFS=,")
    job = submission(*[executor] * 2, program=("sh", "-c", "exit $((3 + NEMORUN_MEMBER * 4))"))
    code, _, said = run(job, commands, SLURM_TASKS_PER_NODE="2", SLURM_JOB_NODELIST="n1")
    assert (code, said.count(b"unbound")) == (7, 0)


def test_setup_lines_run_where_the_job_does_and_before_it(commands):
    executor = SlurmExecutor(setup_lines="export HERE=$PWD FOUND=yes DECLARED=setup\nshopt -s extglob")
    program = ("sh", "-c", 'test "$HERE" = "$PWD" && echo "$FOUND $DECLARED"')
    job = submission(executor, program=program, environment={"DECLARED": "mine"})
    assert run(job, commands)[:2] == (0, b"yes mine\n")


def test_a_restart_is_a_new_incarnation_and_attempt(commands):
    job = submission(SlurmExecutor(), program=("sh", "-c", "echo $NEMORUN_ATTEMPT"), key=Key("0" * 16, "a", 2))
    job = attrs.evolve(job, members=(attrs.evolve(job.members[0], environment={"NEMORUN_ATTEMPT": "2"}),))
    assert run(job, commands, SLURM_RESTART_COUNT="3")[:2] == (0, b"5\n")


def test_a_restart_over_the_budget_runs_nothing(commands):
    job = submission(SlurmExecutor(requeue=2), program=("echo", "ran"))
    assert run(job, commands, SLURM_RESTART_COUNT="3")[:2] == (1, b"")


def test_a_port_on_which_somebody_listens_is_passed_over(commands):
    job = submission(SlurmExecutor(), program=("sh", "-c", "echo $NEMORUN_HEAD_PORT"))
    wanted = int(run(job, commands)[1])
    with socket.create_server(("127.0.0.1", wanted)):
        assert wanted < int(run(job, commands)[1]) < wanted + 100


def test_an_existing_claim_runs_nothing_and_says_so(commands, tmp_path):
    job = submission(SlurmExecutor(), program=("sh", "-c", "echo ran >>runs"))
    job = attrs.evolve(job, members=(attrs.evolve(job.members[0], cwd=str(tmp_path)),))
    script = batch_script(job, Layout(folder=str(tmp_path), support=str(SUPPORT)))
    environment = {"PATH": f"{commands}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
    codes = [
        subprocess.run(["bash"], input=script, text=True, env=environment, timeout=20).returncode for _ in range(2)
    ]
    assert codes == [0, 125]
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_a_secret_reaches_its_member_from_its_file_alone(commands, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE", "s'e\nhidden")
    job = submission(
        SlurmExecutor(), program=("sh", "-c", 'printf %s "$TOKEN"'), environment={"TOKEN": Secret.from_env("SOURCE")}
    )
    assert "hidden" not in batch_script(job, LAYOUT, secrets="/x")
    path = tmp_path / "a secret's file"
    path.write_text(secrets_text(job))
    monkeypatch.delenv("SOURCE")
    assert run(job, commands, secrets=str(path))[:2] == (0, b"s'e\nhidden")


def test_declared_variables_win_over_those_of_an_apptainer_image(commands, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE", "hid den")
    job = submission(
        SlurmExecutor(container_image="a b.sif", container_runtime="apptainer", container_mounts=["/data:/data"]),
        program=("sh", "-c", 'echo "$STAGE,$TOKEN"'),
        environment={"STAGE": "it's", "TOKEN": Secret.from_env("SOURCE")},
    )
    (tmp_path / "secrets").write_text(secrets_text(job))
    code, log, _ = run(job, commands, secrets=str(tmp_path / "secrets"))
    assert (code, log) == (0, b"exec --bind /data:/data\nit's,hid den\n")


def test_nothing_runs_without_its_secrets(commands, tmp_path):
    job = submission(SlurmExecutor(), program=("echo", "ran"), environment={"TOKEN": Secret.from_env("SOURCE")})
    assert run(job, commands, secrets=str(tmp_path / "absent"))[:2] == (1, b"")


def test_each_member_has_its_own_secrets(monkeypatch):
    monkeypatch.setenv("A", "1")
    monkeypatch.setenv("B", "2")
    job = submission(SlurmExecutor(), SlurmExecutor())
    members = [attrs.evolve(job.members[number], environment={"T": Secret.from_env("AB"[number])}) for number in (0, 1)]
    text = secrets_text(attrs.evolve(job, members=tuple(members)))
    for number in (0, 1):
        script = f"NEMORUN_MEMBER={number}\n{text}echo $T"
        assert subprocess.run(["sh"], input=script, text=True, capture_output=True).stdout == f"{number + 1}\n"


def test_a_secret_that_is_missing_is_named(monkeypatch):
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(UsageError, match="ABSENT"):
        secrets_text(submission(SlurmExecutor(), environment={"T": Secret.from_env("ABSENT")}))


def test_without_secrets_there_is_no_file_of_them():
    assert secrets_text(submission(SlurmExecutor())) == ""


def test_a_null_character_is_refused():
    with pytest.raises(UsageError, match="NUL"):
        batch_script(submission(SlurmExecutor(), program=("a\0b",)), LAYOUT)


@pytest.mark.parametrize("folder", ["/a,b", "/a:b"])
def test_a_folder_that_no_container_can_mount_is_refused(folder):
    with pytest.raises(UsageError, match=folder):
        batch_script(submission(PYXIS), attrs.evolve(LAYOUT, folder=folder))


@given(WORD, st.integers(0, 99), st.from_regex(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?", fullmatch=True))
def test_a_jobs_name_is_short_and_safe(job, attempt, prefix):
    name = job_name(Key("0" * 16, job, attempt), prefix)
    assert name.startswith(prefix)
    assert len(name) <= 128
    assert name.isascii()
    assert not set(name) & set(" ,/\\'\"%|\n")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for golden in JOBS:
        (GOLDEN / f"{golden}.sbatch").write_text(rendered(golden))
