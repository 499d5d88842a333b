"""Members of a group share an allocation where they can, and stand in it where they were put."""

from __future__ import annotations

import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.placement import components

from nemorun_core import UsageError


def placed(*executors):
    return [(part.members, part.placing, part.nodes, part.ntasks) for part in components(executors)]


def test_a_single_member_has_the_whole_job():
    assert placed(SlurmExecutor(nodes=2, ntasks_per_node=4)) == [((0,), "alone", 2, None)]


def test_members_with_nodes_have_them_side_by_side():
    parts = components([SlurmExecutor(nodes=2, ntasks_per_node=4)] * 3)
    assert [(part.members, part.placing, part.nodes) for part in parts] == [((0, 1, 2), "apart", 6)]
    assert [parts[0].first_node(member) for member in range(3)] == [0, 2, 4]


def test_the_tasks_of_all_members_are_asked_for():
    assert placed(*[SlurmExecutor(nodes=1, ntasks=3)] * 2) == [((0, 1), "apart", 2, 6)]


def test_members_without_nodes_are_packed():
    assert placed(*[SlurmExecutor(cpus_per_task=2)] * 8) == [(tuple(range(8)), "packed", None, 8)]


def test_what_a_member_has_for_itself_does_not_part_a_group():
    executors = [SlurmExecutor(nodes=1, env_vars={"A": str(number)}, separate_stderr=bool(number)) for number in (0, 1)]
    assert placed(*executors) == [((0, 1), "apart", 2, None)]


def test_members_that_ask_for_different_things_are_components():
    assert placed(SlurmExecutor(mem="1G"), SlurmExecutor(nodes=2)) == [
        ((0,), "alone", None, None),
        ((1,), "alone", 2, None),
    ]


def test_members_are_components_where_the_user_says_so():
    assert placed(*[SlurmExecutor(nodes=1, heterogeneous=True)] * 2) == [
        ((0,), "alone", 1, None),
        ((1,), "alone", 1, None),
    ]


def test_members_of_one_component_share_its_nodes():
    executor = SlurmExecutor(nodes=1, het_group_indices=[0, 1, 1])
    assert placed(executor, executor, executor) == [((0,), "alone", 1, None), ((1, 2), "shared", 1, None)]


@pytest.mark.parametrize("indices", [[0], [0, 2], [1, 2], [-1, 0], []])
def test_components_that_do_not_fit_the_members_are_refused(indices):
    with pytest.raises(UsageError, match="het_group_indices"):
        components([SlurmExecutor(het_group_indices=indices)] * 2)


def test_members_of_one_component_must_ask_for_the_same():
    with pytest.raises(UsageError, match="members 0 and 1"):
        components([SlurmExecutor(nodes=1, het_group_indices=[0, 0]), SlurmExecutor(nodes=2, het_group_indices=[0, 0])])


@pytest.mark.parametrize(
    "fields",
    [{"setup_lines": "a"}, {"export": "NONE"}, {"requeue": 1}, {"job_name_prefix": "a"}, {"open_mode": "truncate"}],
)
def test_what_a_job_has_once_must_be_the_same_for_all_members(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        components([SlurmExecutor(heterogeneous=True), SlurmExecutor(heterogeneous=True, **fields)])


def test_a_group_that_cannot_be_one_job_is_refused_by_its_executor():
    executor = SlurmExecutor(mem="1G")
    executor.check()
    with pytest.raises(UsageError, match="mem"):
        executor.check_group([executor] * 2)


@pytest.mark.parametrize("fields", [{"mem": "1G"}, {"gres": "gpu:1"}, {"gpus_per_node": 1}, {"ntasks": 2}])
def test_what_is_meant_for_a_node_needs_nodes(fields):
    with pytest.raises(UsageError, match=next(iter(fields))):
        components([SlurmExecutor(**fields)] * 2)
    components([SlurmExecutor(**fields)])
    components([SlurmExecutor(**fields, nodes=1)] * 2)
