"""`import nemorun_core` loads nothing, touches nothing, and its three tables of names are one."""

from __future__ import annotations

import ast
import importlib.util
import json
import logging
from pathlib import Path

import pytest

import nemorun_core
from nemorun_core import Experiment
from tests.experiment.helpers import python, sh

PLUGIN_NAMES = {
    "DockerExecutor",
    "EnvVars",
    "GitArchivePackager",
    "HybridPackager",
    "LocalExecutor",
    "LocalTunnel",
    "PatternPackager",
    "SSHTunnel",
    "SlurmExecutor",
    "Torchrun",
}


def loaded_by(code: str) -> set[str]:
    done = python(
        f"import sys, json\nbefore = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    assert done.stderr == ""
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_else():
    assert loaded_by("import nemorun_core") == {"nemorun_core"}


def test_naming_a_class_loads_no_plugin_and_no_rich():
    loaded = loaded_by("import nemorun_core as run\nrun.Experiment, run.Script, run.Partial, run.UsageError")
    forbidden = {"rich", "click", "cloudpickle", "pluggy", "nemorun_local", "nemorun_env", "asyncio"}
    assert not {name.partition(".")[0] for name in loaded} & forbidden


def test_a_plugins_class_loads_that_plugin_only():
    loaded = loaded_by("import nemorun_core as run\nrun.LocalExecutor()")
    assert "nemorun_local" in loaded
    assert not [name for name in loaded if name.partition(".")[0] in ("rich", "nemorun_env", "click")]
    assert "nemorun_local.backend" not in loaded


def test_making_and_reading_experiments_loads_no_rich():
    with Experiment("read", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    loaded = loaded_by(
        f"import nemorun_core as run\nrun.Experiment.catalog(); run.Experiment.from_id({experiment.id!r}).status()"
    )
    assert not [name for name in loaded if name.partition(".")[0] in ("rich", "nemorun_env", "cloudpickle")]


def test_the_table_the_type_checkers_block_and_dir_are_one():
    spec = importlib.util.find_spec("nemorun_core")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    table = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_NAMES"
    )
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    )
    imported = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    core = {name: (f"nemorun_core.{module}", name) for name, module in table.items()}
    assert {name: where for name, where in imported.items() if name not in PLUGIN_NAMES} == core
    assert {
        name for name, (module, _) in imported.items() if not str(module).startswith("nemorun_core")
    } == PLUGIN_NAMES
    assert set(dir(nemorun_core)) == {*core, *PLUGIN_NAMES, "__version__"}
    assert list(table) == sorted(table, key=str)


@pytest.mark.parametrize("name", dir(nemorun_core))
def test_every_public_name_can_be_had(name):
    assert getattr(nemorun_core, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'nemorun_core' has no attribute 'NoSuchName'"):
        nemorun_core.NoSuchName  # type: ignore[attr-defined]  # noqa: B018


def test_the_executor_of_a_plugin_that_is_not_installed_says_what_to_install():
    with pytest.raises(AttributeError, match="pip install nemorun-kubernetes"):
        nemorun_core.KubernetesExecutor  # type: ignore[attr-defined]  # noqa: B018


def test_asking_for_a_dunder_reads_no_metadata():
    """`copy`, `inspect` and doctest ask modules for names like `__wrapped__`; that must stay cheap."""
    loaded = loaded_by(
        "import nemorun_core\nhasattr(nemorun_core, '__wrapped__'); hasattr(nemorun_core, '__path_hooks__')"
    )
    assert "importlib_metadata" not in loaded


def test_the_root_logger_is_not_touched(capsys):
    root = logging.getLogger()
    before = (list(root.handlers), root.level, list(root.filters), logging.lastResort, logging.root.manager.disable)
    with Experiment("logger", log_level="DEBUG") as experiment:
        experiment.add(sh("true"), tail_logs=True)
        experiment.run()
    after = (list(root.handlers), root.level, list(root.filters), logging.lastResort, logging.root.manager.disable)
    assert after == before


def test_signal_handlers_of_the_user_are_not_touched(capsys):
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    with Experiment("signals", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
        during = {number: signal.getsignal(number) for number in before}
    assert during == before
