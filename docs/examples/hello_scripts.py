"""Three jobs at once: a script, an inline script, and a Python function with its configuration.

Written as for NeMo-Run: only the import of the library is another.
"""

from pathlib import Path

from simple.add import SomeObject, add_object, commonly_used_object

import nemorun_core as run

HERE = Path(__file__).parent

if __name__ == "__main__":
    script = run.Script(str(HERE / "scripts" / "echo.sh"))
    inline_script = run.Script(
        inline="""
env
echo "Hello 1"
echo "Hello 2"
"""
    )
    fn = run.Partial(
        add_object,
        obj_1=commonly_used_object(),
        obj_2=run.Config(SomeObject, value_1=10, value_2=20, value_3=30),
    )
    executor = run.LocalExecutor()

    with run.Experiment("experiment_with_scripts", executor=executor, log_level="WARN") as exp:
        exp.add(script, tail_logs=True)
        exp.add(inline_script, tail_logs=True)
        exp.add(fn, tail_logs=True)
        exp.run(detach=False)
