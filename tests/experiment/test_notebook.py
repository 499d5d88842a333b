"""In a notebook: an event loop runs in the thread, standard output is no file, functions live in cells."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from nemorun_core import Experiment, Partial
from tests.experiment import targets
from tests.experiment.helpers import launch, log, sh, states


def test_an_experiment_runs_inside_a_running_event_loop(capsys):
    async def cell() -> Experiment:
        with Experiment("loop", log_level="ERROR") as experiment:
            first = experiment.add(sh("echo hello"), name="first", tail_logs=True)
            experiment.add(Partial(targets.add, 1, 2), name="second", dependencies=[first])
            experiment.run(check=True)
        experiment.logs("second")
        assert experiment.wait()
        return experiment

    assert set(states(asyncio.run(cell())).values()) == {"SUCCEEDED"}


def test_a_direct_task_may_run_an_event_loop_of_its_own(capsys):
    with Experiment("loop", log_level="ERROR") as experiment:
        job = experiment.add(Partial(run_in_a_loop), name="job")
        experiment.run(direct=True)
    assert log(experiment, job) == "awaited\n"


def run_in_a_loop() -> None:
    async def work() -> None:
        print("awaited")

    asyncio.run(work())


def test_other_tasks_of_the_loop_go_on_when_the_experiment_is_awaited_in_a_thread():
    async def cell() -> int:
        ticks = 0
        with Experiment("loop", log_level="ERROR") as experiment:
            experiment.add(sh("sleep 0.05"))
            experiment.run()
            waiting = asyncio.create_task(asyncio.to_thread(experiment.wait))
            while not waiting.done():
                ticks += 1
                await asyncio.sleep(0)
        return ticks

    assert asyncio.run(cell()) > 1


def test_output_that_is_no_file_gets_text(tmp_path):
    """As in a kernel: `sys.stdout` has `write` and `flush`, no `buffer` and no `fileno`."""
    done = launch(
        tmp_path,
        """
        import sys

        class Stream:
            def __init__(self):
                self.text = ""
            def write(self, text):
                self.text += text
                return len(text)
            def flush(self):
                pass

        sys.stdout = Stream()
        with run.Experiment("kernel") as experiment:
            experiment.add(run.Script(inline="printf 'été\\\\nlast'"), name="job", tail_logs=True)
            experiment.run()
        experiment.logs("job")
        experiment.status()
        with experiment.reset():
            experiment.run(direct=True)
        sys.__stdout__.write(sys.stdout.text)
        sys.__stdout__.flush()
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "job | été\njob | last\n" in done.stdout
    assert "- Status: SUCCEEDED" in done.stdout
    assert done.stdout.count("été\nlast") == 2


# A kernel itself.


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator[Any]:
    """A kernel as Jupyter starts it, with a home of its own."""
    folder = tmp_path_factory.mktemp("kernel")
    own = {"NEMORUN_HOME": str(folder / "home"), "IPYTHONDIR": str(folder), "JUPYTER_PLATFORM_DIRS": "1"}
    manager, client = start_new_kernel(startup_timeout=60, env=os.environ | own, cwd=str(folder))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def cell(kernel: Any, code: str) -> str:
    """Run a cell and return all that it wrote; what it raised fails the test."""
    written = []

    def take(message: dict[str, Any]) -> None:
        content = message["content"]
        written.append(content.get("text", "") if message["msg_type"] == "stream" else "")

    reply = kernel.execute_interactive(code, timeout=60, output_hook=take)["content"]
    assert reply["status"] == "ok", "\n".join(reply["traceback"])
    return "".join(written)


def test_a_function_of_a_cell_runs_as_a_job_and_its_output_is_shown(kernel):
    cell(kernel, "import nemorun_core as run\ndef double(value):\n    print('doubled', value * 2)")
    shown = cell(
        kernel,
        "with run.Experiment('notebook', log_level='ERROR') as experiment:\n"
        "    experiment.add(run.Partial(double, 21), name='job', tail_logs=True)\n"
        "    experiment.run(check=True)\n",
    )
    assert shown == "job | doubled 42\n"


def test_a_cell_that_is_run_again_uses_the_new_function(kernel):
    for word in ("old", "new"):
        cell(kernel, f"import nemorun_core as run\ndef say():\n    print({word!r})")
        shown = cell(
            kernel,
            "with run.Experiment('notebook', log_level='ERROR') as experiment:\n"
            "    experiment.add(run.Partial(say), name='job')\n"
            "    experiment.run(tail_logs=True, check=True)\n",
        )
        assert shown == f"job | {word}\n"


def test_the_guides_calls_work_in_cells_of_their_own(kernel):
    cell(kernel, "import nemorun_core as run\nexp = run.Experiment('cells', id='cells')")
    cell(kernel, "with exp:\n    exp.add(run.Script(inline='echo hello'), name='job')")
    assert "from_id('cells')" in cell(kernel, "with exp:\n    exp.run()")
    assert "- Status: SUCCEEDED" in cell(kernel, "exp.status()")
    assert cell(kernel, "exp.logs('job')") == "hello\n"
    assert cell(kernel, "print(run.Experiment.from_id('cells').wait())") == "True\n"


def test_a_cell_shows_no_terminal_codes(kernel):
    shown = cell(kernel, "with exp.reset():\n    exp.run(tail_logs=True)")
    assert re.search(r"job \| hello\n", shown)
    assert "\x1b" not in shown


def test_an_interrupted_cell_cancels_and_the_kernel_goes_on(kernel):
    code = (
        "import os, signal, threading\n"
        "with run.Experiment('stopped', id='stopped', log_level='ERROR') as experiment:\n"
        "    experiment.add(run.Script(inline='exec sleep 300'), name='job')\n"
        "    experiment.run()\n"
        "    def stop():\n"
        "        while experiment.status(return_dict=True)['job']['state'] != 'RUNNING': pass\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Thread(target=stop).start()\n"
    )
    reply = kernel.execute_interactive(code, timeout=60, output_hook=lambda message: None)["content"]
    assert reply["ename"] == "KeyboardInterrupt"
    status = cell(kernel, "print(run.Experiment.from_id('stopped').status(return_dict=True)['job']['state'])")
    assert status == "CANCELLED\n"
