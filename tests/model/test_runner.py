"""The standalone runner: started as jobs start it, on real files, with nothing of ours importable."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import nemorun_core.engine.runner as runner
from nemorun_core.model.buildable import Config, Partial
from nemorun_core.model.task import Place
from tests.model.sample_targets import Colour, Optimizer, apply, fail, show, square_in_processes

ROOT = str(pathlib.Path(__file__).parents[2])
SUPPORT = str(pathlib.Path(__import__("cloudpickle").__file__).parents[1])


@pytest.fixture
def run(tmp_path):
    def start(task, *, edit=lambda payload: payload, sys_path=(ROOT,), **more):
        place = Place(
            folder=str(tmp_path),
            member=0,
            python=sys.executable,
            runner=runner.__file__,
            objects=str(tmp_path / "objects"),
            support=SUPPORT,
            sys_path=sys_path,
        )
        (tmp_path / "objects").mkdir(exist_ok=True)
        for digest, content in task.objects().items():
            (tmp_path / "objects" / digest).write_bytes(content)
        command = Partial.from_record(task.to_record()).command(place)
        for name, content in command.files.items():
            (tmp_path / name).write_bytes(json.dumps(edit(json.loads(content))).encode())
        return subprocess.run(command.argv, cwd=tmp_path, text=True, capture_output=True, check=False, **more)

    return start


def test_the_runner_is_one_file_of_python_3_8_and_the_standard_library():
    tree = ast.parse(pathlib.Path(runner.__file__).read_text(), feature_version=(3, 8))
    imported = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imported if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_arguments_arrive_as_they_were(run):
    values = (1, 1.5, float("inf"), True, None, "é\ud800\U0001f600", b"\0", 2j, (1,), [2], {3}, frozenset({4}))
    done = run(Partial(show, *values, x={1: "a"}, y=pathlib.Path("/x"), z=Colour.RED, f=len, w={"a": [{"b": 2}]}))
    assert done.stderr == ""
    expected = {"f": len, "w": {"a": [{"b": 2}]}, "x": {1: "a"}, "y": pathlib.Path("/x"), "z": Colour.RED}
    assert done.stdout.splitlines()[:2] == [repr(values), repr(expected)]


def test_a_config_is_built_once_and_a_nested_partial_waits(run):
    shared = Config(Optimizer, 0.5)
    done = run(Partial(apply, Partial(lambda a, b, c: (a is b, c), shared), shared, 3))
    assert done.stdout == "(True, 3)\n"


def test_output_is_seen_before_the_end(run):
    done = run(Partial(lambda: (print("seen"), os._exit(7))), env={})
    assert (done.returncode, done.stdout) == (7, "seen\n")


def test_a_failure_shows_the_users_frames_only(run):
    done = run(Partial(fail, "no luck"))
    assert done.returncode == 1
    assert done.stderr.startswith('Traceback (most recent call last):\n  File "')
    assert done.stderr.endswith("ValueError: no luck\n")
    assert "runner.py" not in done.stderr


def test_the_functions_own_exit_code_is_the_jobs(run):
    assert run(Partial(sys.exit, 5)).returncode == 5


def test_a_missing_module_is_named_with_interpreter_and_search_path(run):
    def rename(payload):
        return json.loads(json.dumps(payload).replace("tests.model.sample_targets:show", "absent_module:show"))

    done = run(Partial(show), edit=rename)
    assert done.returncode == 1
    assert f"absent_module:show cannot be imported by {os.path.normpath(sys.executable)}" in done.stderr
    assert ROOT in done.stderr
    assert "runner.py" not in done.stderr
    assert "frozen importlib" not in done.stderr


def test_a_failure_while_a_module_is_imported_shows_where(run, tmp_path):
    (tmp_path / "broken.py").write_text("import absent_thing\n")

    def rename(payload):
        return json.loads(json.dumps(payload).replace("tests.model.sample_targets:show", "broken:show"))

    done = run(Partial(show), edit=rename, sys_path=(str(tmp_path),))
    assert "broken.py" in done.stderr
    assert "No module named 'absent_thing'" in done.stderr


def test_another_python_version_is_refused_before_anything_runs(run):
    def age(payload):
        payload["pickles"] = {digest: [3, 7] for digest in payload["pickles"]}
        return payload

    done = run(Partial(lambda: print("ran")), edit=age)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Python 3.7" in done.stderr
    assert os.path.normpath(sys.executable) in done.stderr


def test_the_launchers_first_folder_stays_first_and_the_runners_own_is_not_there(run, tmp_path):
    (tmp_path / "json5x.py").write_text("")
    installed = next(entry for entry in sys.path if entry.endswith("site-packages"))
    done = run(Partial(lambda: print(__import__("sys").path)), sys_path=(str(tmp_path), installed, "/after"))
    path = ast.literal_eval(done.stdout)
    assert path[0] == str(tmp_path)
    assert path.index(installed) < path.index("/after")
    assert os.path.dirname(runner.__file__) not in path


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_started_by_the_function_find_importable_functions(run, method):
    done = run(Partial(square_in_processes, method))
    assert (done.stderr, done.stdout) == ("", "[1, 4, 9]\n")


SCRIPT = """
    import json, multiprocessing, pathlib, pickle, sys
    from nemorun_core.model.buildable import Config, Partial

    with open("starts", "a") as stream:
        stream.write("started\\n")

    class Model:
        def __init__(self, width):
            self.width = width

    def main(value):
        return value * 2

    def train(model, method):
        assert isinstance(pickle.loads(pickle.dumps(model)), Model)
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(model.width, pool.map(main, [1, 2]), sys.argv)

    task = Partial(train, Config(Model, 3), sys.argv[1])
    from nemorun_core.model.task import Place
    objects = pathlib.Path("objects")
    objects.mkdir()
    for digest, content in task.objects().items():
        (objects / digest).write_bytes(content)
    command = task.command(Place(folder=".", member=0, python=sys.executable, runner=sys.argv[2], objects="objects",
        support=sys.argv[3]))
    for name, content in command.files.items():
        pathlib.Path(name).write_bytes(content)
    print(json.dumps(command.argv))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_functions_of_the_launching_script_run_without_starting_it_again(tmp_path, method):
    script = tmp_path / "my_script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    argv = [sys.executable, str(script), method, runner.__file__, SUPPORT]
    env = {**os.environ, "PYTHONPATH": ROOT}
    launched = subprocess.run(argv, cwd=tmp_path, env=env, text=True, capture_output=True, check=True)
    script.write_text("raise SystemExit('started again')")
    done = subprocess.run(json.loads(launched.stdout), cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "3 [2, 4] ['my_script.train']\n"
    assert (tmp_path / "starts").read_text() == "started\n"


# In this process, where each branch can be reached.


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """Write a call, and return where it stands; the import path is put back afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(task, **more):
        content = {"name": "job", **task.to_record(), "sys_path": [], "objects": str(tmp_path), "support": "", **more}
        for digest, pickled in task.objects().items():
            (tmp_path / digest).write_bytes(pickled)
        path = tmp_path / "call.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_folders_come_in_their_order_bundles_first_and_support_last(payload):
    path = payload(Partial(show), sys_path=["/one", *sys.path[-1:], "/two"], bundle=["/bundle"], support="/support")
    before = list(sys.path)
    runner.read(path)
    assert sys.path == ["/bundle", "/one", *before, "/two", "/support"]
    sys.path.insert(0, os.path.dirname(runner.__file__))
    runner.read(path)
    assert os.path.dirname(runner.__file__) not in sys.path


def test_a_node_is_built_once_and_a_partial_within_is_one(payload, capsys):
    shared = Config(Optimizer, 0.5)
    builder = runner.Builder(runner.read(payload(Partial(show, shared, shared, f=Partial(show, 1)))))
    builder.call()
    assert builder.nodes[0] is builder.value({"$": "node", "id": 0})
    assert "functools.partial" in capsys.readouterr().out


def test_a_tag_of_a_newer_nemorun_is_named(payload):
    with pytest.raises(ValueError, match="of a newer nemorun"):
        runner.Builder(runner.read(payload(Partial(show)))).value({"$": "moon"})


def test_a_spawned_process_finds_what_the_script_defined(payload, monkeypatch):
    import runpy

    def local():
        return 3

    local.__module__ = "__main__"
    monkeypatch.setenv(runner.PAYLOAD, payload(Partial(local)))
    assert runpy.run_path(runner.__file__, run_name="__mp_main__")["local"]() == 3
