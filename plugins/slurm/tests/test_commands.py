"""Commands: what they are given, how long they may take, and what is said when they do not answer."""

from __future__ import annotations

import glob

import pytest
from nemorun_slurm.commands import LocalCommands, SSHCommands
from nemorun_slurm.remote import matches
from nemorun_slurm.tunnel import LocalTunnel, SSHTunnel

from nemorun_core import TransientError, UsageError


def test_a_command_is_given_its_arguments_and_input_exactly():
    result = LocalCommands().run(["sh", "-c", 'printf "%s|" "$@"; cat', "sh", "a b", "", "$x"], stdin=b"\0in")
    assert (result.returncode, result.out) == (0, b"a b||$x|\0in")


def test_an_exit_code_is_a_result():
    result = LocalCommands().run(["sh", "-c", "echo no >&2; exit 3"])
    assert (result.returncode, result.error) == (3, "no")


def test_a_command_that_does_not_end_is_killed_and_in_doubt():
    with pytest.raises(TransientError, match=r"sh did not answer within 0\.2 s"):
        LocalCommands().run(["sh", "-c", "exec sleep 60"], timeout_seconds=0.2)


def test_a_command_that_is_not_there_is_named_with_what_to_do():
    with pytest.raises(UsageError, match=r"'no-such-sbatch'.*\n.*SSHTunnel"):
        LocalCommands().run(["no-such-sbatch"])


def test_variables_by_which_slurm_takes_options_are_kept_from_it(monkeypatch):
    for name in ("SBATCH_PARTITION", "SLURM_JOB_ID", "SQUEUE_STATES", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "surprise")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    monkeypatch.setenv("TOKEN", "secret")
    out = LocalCommands().run(["env"], environment={"TZ": "UTC"}, without=["TOKEN"]).out.decode().splitlines()
    assert not [line for line in out if "surprise" in line or "secret" in line]
    assert {"SLURM_CONF=/etc/slurm/slurm.conf", "TZ=UTC"} <= set(out)


def test_a_host_that_cannot_be_reached_is_named_with_what_to_try():
    commands = SSHCommands(SSHTunnel(host="127.0.0.1", port=9, job_dir="/tmp", options=("-F", "/dev/null")))
    try:
        with pytest.raises(TransientError, match=r"'127\.0\.0\.1' cannot be reached: .*\n.*BatchMode=yes"):
            commands.run(["true"])
    finally:
        commands.close()
        commands.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "-oProxyCommand=x"},
        {"host": ""},
        {"host": "a b"},
        {"job_dir": "relative"},
        {"job_dir": "/a\nb"},
        {"port": 0},
        {"user": "-l"},
        {"pre_command": "\0"},
    ],
)
def test_a_tunnel_that_leads_nowhere_is_refused(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        SSHTunnel(**{"host": "login", "job_dir": "/data/me", **fields}).check()


def test_equal_tunnels_are_one_connection_and_others_are_not():
    here, there = LocalTunnel(), SSHTunnel(host="login", job_dir="/data/me", options=["-4"])
    assert there.connection() == SSHTunnel(host="login", job_dir="/data/me", options=("-4",)).connection()
    assert len({here.connection(), there.connection(), SSHTunnel(host="login", job_dir="/x").connection()}) == 3


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "b/a.txt", False),
        ("**/*.txt", "a.txt", True),
        ("**/*.txt", "b/c/a.txt", True),
        ("result", "result/a/b", True),
        ("result/", "result/a", True),
        ("result/**", "result/a/b", True),
        ("*", ".hidden", False),
        (".h*", ".hidden", True),
        ("**/*", "a/.git/b", True),  # the folder `a` is meant, and comes whole
        ("**/*", ".git/b", False),
        ("[ab]?", "b1", True),
        ("A", "a", False),
    ],
)
def test_outputs_are_chosen_as_by_glob(pattern, name, expected):
    assert matches(pattern, name) is expected


def test_outputs_are_chosen_as_glob_itself_does(tmp_path):
    names = ["a.txt", "b/a.txt", "b/c/a.txt", ".hidden", "b/.git/x", "b/d"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("*", "**/*", "*.txt", "**/*.txt", "b/*", "?/*", ".*", "b/.*/x", "**/c/**"):
        found = [one.rstrip("/") for one in glob.glob(pattern, root_dir=tmp_path, recursive=True)]
        by_glob = {name for name in names for one in found if name == one or name.startswith(f"{one}/")}
        assert {name for name in names if matches(pattern, name)} == by_glob, pattern
