"""Partial and Config: binding, attributes, copies, equality, repr, differences, building."""

from __future__ import annotations

import copy
import functools
import json
import pickle

import pytest
from hypothesis import given

from nemorun_core.errors import UsageError
from nemorun_core.model.buildable import Config, Partial
from nemorun_core.model.graph import build_arguments
from nemorun_core.model.resolving import resolve
from nemorun_core.model.show import ABSENT, diff
from nemorun_core.model.task import Script
from tests.model.sample_targets import Colour, Data, Model, Optimizer, Seeded, Tokenizer, command, show, spread, train
from tests.model.test_values import values


def no_pickles(digest):
    raise AssertionError(digest)


def through_json(task):
    return Partial.from_record(json.loads(json.dumps(task.to_record())))


# Binding


def test_positional_arguments_are_bound_to_the_signature():
    assert Partial(train, 1, 2) == Partial(train, model=1, steps=2)


def test_a_wrong_name_is_refused_with_the_signature_and_the_nearest_name():
    with pytest.raises(UsageError, match=r"train\(model.*steps.*'stpes'(?s:.)*Did you mean 'steps'"):
        Partial(train, stpes=1)
    task = Partial(train)
    with pytest.raises(UsageError, match="Did you mean 'steps'"):
        task.step = 1
    with pytest.raises(AttributeError, match="Did you mean 'steps'"):
        _ = task.step


def test_too_many_or_doubled_arguments_are_refused():
    with pytest.raises(UsageError, match="takes 4 arguments by position, found 5"):
        Partial(train, 1, 2, 3, 4, 5)
    with pytest.raises(UsageError, match="'model' twice"):
        Partial(train, 1, model=2)


def test_arguments_arrive_as_the_signature_says():
    assert Partial(spread, 1, 2, 3, 4, x=5).call() == (1, 2, (3, 4), {"x": 5})
    assert Partial(spread, 1, x=5).call() == (1, 2, (), {"x": 5})
    task = Partial(spread, 1)
    task.rest = [7]
    task.second = 3
    assert task.call() == (1, 3, (7,), {})
    assert resolve(through_json(task), no_pickles).call() == (1, 3, (7,), {})


def test_missing_arguments_may_be_set_later_and_are_refused_when_recorded():
    task = Partial(show, Config(Model))
    with pytest.raises(UsageError, match=r"\$\[0\].*not given width(?s:.)*task\[0\]\.width"):
        task.to_record()
    with pytest.raises(UsageError, match="width"):
        task.call()
    task.values[0].width = 3
    assert task.to_record()


@pytest.mark.parametrize(
    "target", [3, Tokenizer("x").encode, functools.partial(print), Colour.RED, Config(dict), list[int]]
)
def test_what_is_no_function_or_class_is_refused(target):
    with pytest.raises(UsageError, match="must be a function or a class"):
        Config(target)


def test_a_class_method_is_a_target():
    task = Partial(show, Config(Tokenizer.load, "bpe"))
    assert "tests.model.sample_targets:Tokenizer.load" in json.dumps(task.to_record())
    assert resolve(through_json(task), no_pickles) == task


def test_generic_in_its_target():
    assert Partial[int](len, [1, 2]).call() == 2


# Attributes


def test_attributes_are_the_arguments():
    task = Partial(train, Config(Model, 3))
    task.model.width = 4
    task.steps = 5
    assert task.model.width == 4
    assert task == Partial(train, Config(Model, 4), 5)
    del task.steps
    assert task.steps == 10
    assert task == Partial(train, Config(Model, 4))


def test_a_changed_default_sticks_and_the_functions_own_is_left_alone():
    task = Partial(train, 1)
    task.optimizer.lr = 0.5
    task.table["b"] = 2
    assert task.call() == (1, 10, Optimizer(0.5), {"a": 1, "b": 2})
    assert train(1) == (1, 10, Optimizer(), {"a": 1})
    assert task.clone() == task == through_json(task)
    assert task != Partial(train, 1)


def test_reading_a_default_changes_nothing():
    task = Partial(train, Config(Model, 1))
    assert task.optimizer.lr == 0.1
    assert task.table == {"a": 1}
    assert task.model.optimizer.betas == (0.9, 0.99)
    assert task.model.layers == []
    assert task == Partial(train, Config(Model, 1))
    assert task.to_record() == Partial(train, Config(Model, 1)).to_record()
    assert repr(task) == repr(Partial(train, Config(Model, 1)))


def test_the_default_of_a_factory_can_be_changed():
    config = Config(Model, 1)
    config.optimizer.lr = 3e-4
    config.layers.append(2)
    assert Partial(show, config).clone().values[0] == Config(Model, 1, Optimizer(3e-4), [2])
    data = Config(Data, "x")
    data.shards.append(1)
    assert Partial(train, data).call()[0] == Data("x", [1])


def test_an_argument_named_like_a_method_is_an_item():
    task = Partial(command, command="ls")
    assert task["command"] == "ls"
    with pytest.raises(UsageError, match=r"task\['command'\]"):
        task.command = "pwd"
    task["command"] = "pwd"
    assert task.call() == "pwd"


# Instances


def test_instances_become_config_and_stay_shared():
    shared = Optimizer(0.3)
    task = Partial(train, model=Model(2, shared, [Data("x"), {"k": shared}]), optimizer=shared)
    assert task.model == Config(
        Model, width=2, optimizer=task.optimizer, layers=[Config(Data, "x", []), {"k": task.optimizer}]
    )
    assert task.model.optimizer is task.optimizer
    model, _, optimizer, _ = task.call()
    assert model.optimizer is optimizer is model.layers[1]["k"]
    task.optimizer.lr = 1.0
    assert shared.lr == 0.3


def test_an_instance_put_into_a_list_later_becomes_config_too():
    task = Partial(show, x=[1])
    task.x.append(Optimizer(0.3))
    assert through_json(task).x[1].lr == 0.3
    assert task == through_json(task)
    assert Partial(show, x=[1, Optimizer(0.3)]) == task


def test_an_instance_that_cannot_be_rebuilt_is_refused_with_its_path():
    with pytest.raises(UsageError, match=r"\$\.model: .*seed(?s:.)*run.Config\(Seeded"):
        Partial(train, Seeded(1))
    with pytest.raises(UsageError, match="no hash"):
        Partial(show, {Frozen(1)})


@functools.lru_cache
def _frozen():
    import attrs

    return attrs.make_class("Frozen", ["x"], frozen=True)


Frozen = _frozen()


# Building


def test_a_config_used_twice_is_built_once():
    shared = Config(Tokenizer, "a")
    first, second, rest, options = Partial(spread, shared, [shared], x=Config(dict, y=shared)).call()
    assert first is second[0] is options["x"]["y"]
    assert rest == ()


def test_a_nested_partial_becomes_a_functools_partial():
    task = Partial(show, Partial(spread, 1, x=Config(Tokenizer, "a")), given=Partial(train, 1, optimizer=2))
    for ready in (task, resolve(through_json(task), no_pickles)):
        first, given = build_arguments(ready)[0][0], build_arguments(ready)[1]["given"]
        assert isinstance(first, functools.partial)
        assert first(5)[1] == 5
        assert given(3, table=4) == (1, 3, 2, 4)


def test_a_nested_partial_may_lack_what_its_caller_gives():
    task = Partial(show, factory=Partial(train, steps=3))
    assert build_arguments(task)[1]["factory"](model=1)[:2] == (1, 3)
    assert task.to_record()
    del task.factory.steps
    task.factory = Partial(spread, 1, 2, 3)
    del task.factory.first
    with pytest.raises(UsageError, match=r"\$\.factory.*not given first"):
        task.to_record()


# Copies


@given(values)
def test_a_clone_is_equal(value):
    task = Partial(show, value, value)
    assert task.clone() == task
    assert copy.deepcopy(task) == task


def test_a_clone_is_independent_and_keeps_sharing():
    shared = Config(Optimizer, 0.1)
    task = Partial(show, shared, [shared], {"a": [1]})
    twin = task.clone()
    twin.values[0].lr = 0.2
    twin.values[2]["a"].append(2)
    assert twin.values[1][0].lr == 0.2
    one = Config(Optimizer, 0.1)
    assert task == Partial(show, one, [one], {"a": [1]})


def test_copies_made_by_python_are_equal_too():
    task = Partial(show, Config(Optimizer, 0.1), x=1)
    task.values[0].betas = (1.0,)
    assert copy.copy(task) == task == pickle.loads(pickle.dumps(task))


# Equality, repr, differences


def test_what_is_shared_is_part_of_equality():
    shared = Config(dict)
    assert Partial(show, shared, shared) != Partial(show, Config(dict), Config(dict))
    assert Partial(show) != Config(show)
    assert Partial(show) != Script("a")
    with pytest.raises(TypeError, match="unhashable"):
        hash(Partial(show))


def test_repr_reads_like_a_program_and_marks_what_is_shared():
    assert repr(Partial(train, Config(Model, 3), steps=10)) == (
        "Partial(tests.model.sample_targets.train, model=Config(tests.model.sample_targets.Model, width=3), steps=10)"
    )
    node = Config(dict)
    assert repr(Config(dict, a=node, b=(node,), c=Colour.RED, d={})) == (
        "Config(dict, a=#1=Config(dict), b=(#1#,), c=tests.model.sample_targets.Colour.RED, d={})"
    )
    for _ in range(100):
        node = Config(dict, a=node, b=node)
    assert len(repr(node)) < 10_000
    assert node == node.clone()


def test_differences_are_listed_with_their_paths():
    left = Partial(show, a=Config(Optimizer, 0.1), b=[1, {"k": 1}], c=1)
    right = Partial(show, a=Config(Optimizer, 0.2), b=[1, {"k": 2}, 3])
    assert [str(d) for d in diff(left, right)] == [
        "$.a.lr: 0.1 -> 0.2",
        "$.b[1]['k']: 1 -> 2",
        "$.b[2]: <absent> -> 3",
        "$.c: 1 -> <absent>",
    ]
    assert diff(left, right)[3].right is ABSENT


def test_differences_of_targets_kinds_scripts_and_sharing_are_listed():
    one = Config(dict)
    assert [str(d) for d in diff(Partial(show), Partial(print))] == ["$: tests.model.sample_targets.show -> print"]
    assert [str(d) for d in diff(Script("a", args=["x"]), Script("a", args=["y"]))] == ["$.args[0]: 'x' -> 'y'"]
    assert [d.path for d in diff(Script("a"), Partial(show))] == ["$"]
    assert [str(d) for d in diff(Partial(show, one, one), Partial(show, one, Config(dict)))] == [
        "$[1]: <same as $[0]> -> <not shared>"
    ]


@given(values, values)
def test_there_is_no_difference_exactly_when_equal(left, right):
    assert diff(Partial(show, left), Partial(show, left)) == []
    assert (diff(Partial(show, left), Partial(show, right)) == []) == (Partial(show, left) == Partial(show, right))


# Definitions read back


def test_a_definition_read_back_equals_the_task_and_can_be_changed_unresolved():
    task = Partial(train, Config(Model, 3), optimizer=Optimizer())
    again = through_json(task)
    assert again == task
    assert again.model.width == 3
    assert again.default_name() == task.default_name() == "tests.model.sample_targets.train"
    again.model.width = 4
    assert resolve(again, no_pickles).call()[0] == Model(4)
    with pytest.raises(UsageError, match="resolve"):
        again.call()


def test_resolving_says_what_has_gone_since():
    record = Partial(train, 1).to_record()
    renamed = json.loads(json.dumps(record).replace(":train", ":trained"))
    with pytest.raises(UsageError, match="trained cannot be imported"):
        resolve(Partial.from_record(renamed), no_pickles)
    changed = json.loads(json.dumps(record).replace('"model"', '"modle"'))
    with pytest.raises(UsageError, match="Did you mean 'model'"):
        resolve(Partial.from_record(changed), no_pickles)


def test_functions_without_an_importable_name_are_sent_by_value_and_read_back():
    offset = 40

    def add(value, function):
        return function(value) + offset

    task = Partial(add, 1, lambda value: value + 1)
    assert task.default_name().endswith("functions_without_an_importable_name_are_sent_by_value_and_read_back.add")
    again = through_json(task)
    assert again == task == again.clone()
    assert again.default_name() == task.default_name()
    assert again.objects() == {}
    assert resolve(again, task.objects().__getitem__).call() == 42


def test_what_is_sent_by_value_shares_its_globals():
    script = {"__name__": "__main__"}
    exec("seen = []\ndef note(): seen.append(1)\ndef count(_): return len(seen)", script)
    task = Partial(script["count"], Config(script["note"]))
    assert resolve(through_json(task), task.objects().__getitem__).call() == 1


def test_what_cannot_be_sent_by_value_is_refused():
    import threading

    lock = threading.Lock()
    with pytest.raises(UsageError, match=r"cannot be sent by value.*lock"):
        Partial(lambda: lock).to_record()


# Size


def chain(depth):
    node = Config(show)
    for _ in range(depth):
        node = Config(show, [node])
    return Partial(show, node)


def test_depth_is_no_limit():
    task = chain(2000)
    again = through_json(task.clone())
    assert again == task
    assert diff(again, task) == []
    assert repr(again) == repr(task)
    assert resolve(again, no_pickles) == task
    deep = Optimizer()
    for _ in range(2000):
        deep = Model(1, deep)
    assert through_json(Partial(show, deep)) == Partial(show, deep)


def test_a_thousand_nodes_are_added_and_loaded():
    leaves = [Config(Model, width=i, optimizer=Config(Optimizer, lr=i * 0.1, betas=(0.1, 0.2))) for i in range(500)]
    task = Partial(show, leaves)
    assert through_json(task.clone()) == task
