"""What a type checker sees of the public names; checked by `nox -s types` with mypy and pyright's rules, never run."""

from __future__ import annotations

from typing_extensions import assert_type

import nemorun_core as run


def add(first: int, second: int = 0) -> int:
    return first + second


@run.autoconvert
def settings() -> dict[str, int]:
    return {}


def names_have_their_signatures() -> None:
    script = run.Script(inline="echo hello", env={"A": "b"}, args=["x"])
    executor = run.LocalExecutor(ntasks_per_node=2, retries=1)
    variables = run.EnvVars({"A": "b"})
    with run.Experiment("title", executor) as experiment:
        first = experiment.add(script, name="first", plugins=[variables])
        assert_type(first, str)
        experiment.add([run.Partial(add, 1, second=2)], executor="local", dependencies=[run.after_any(first)])
        experiment.run(check=True)
    assert_type(experiment, run.Experiment)
    assert_type(settings(), run.Config[dict[str, int]])
    assert_type(experiment.wait(timeout_seconds=1), bool)


def wrong_use_is_an_error() -> None:
    run.LocalExecutor(no_such_field=1)  # type: ignore[call-arg]
    run.Script(inline=3)  # type: ignore[arg-type]
    print(run.NoSuchName)  # type: ignore[attr-defined]


def a_status_is_typed_by_what_is_asked_for(experiment: run.Experiment) -> None:
    assert_type(experiment.status(), None)
    print(experiment.status(return_dict=True)["job"]["state"])
