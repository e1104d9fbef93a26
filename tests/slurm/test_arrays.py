"""Planning of job arrays: every run waits for exactly what it needs, in as few submissions as that allows."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from slurm.arrays import Array, JobRun, Position, plan


def run(name: str, *needs: str, package: str = "pretrain") -> JobRun:
    return JobRun(Path(name), package, needs=needs)


def waits(arrays: list[Array], k: int, place: int) -> set[str]:
    """The names of what Slurm makes a run wait for."""
    array = arrays[k]
    if array.follows is not None:
        return {arrays[array.follows].runs[place].name}
    return {arrays[parent.array].runs[parent.place].name for parent in array.parents} | set(array.jobs)


@st.composite
def graphs(draw):
    """Runs in an order that respects their needs; about one in five needs nothing, a few need two."""
    runs: list[JobRun] = []
    for i in range(draw(st.integers(1, 25))):
        count = min(draw(st.sampled_from([0, 1, 1, 1, 2])), i)
        needs = draw(st.permutations([r.name for r in runs]))[:count]
        runs.append(run(f"r{i}", *needs, package=draw(st.sampled_from(["pretrain", "classification"]))))
    return runs


@settings(deadline=None, max_examples=150)
@given(graphs(), st.integers(1, 6), st.data())
def test_each_run_is_submitted_once_and_waits_for_exactly_its_needs(runs, limit, data):
    names = [r.name for r in runs]
    queued_names = set(data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True)))
    queued = {name: name for name in queued_names}  # in the queue already, Slurm's number being its name
    submitted = [r for r in runs if r.name not in queued_names]
    arrays = plan(submitted, queued=queued, limit=limit)
    assert sorted(r.name for array in arrays for r in array.runs) == sorted(r.name for r in submitted)
    for k, array in enumerate(arrays):
        assert len(array.runs) <= limit
        assert {r.package for r in array.runs} == {array.package}
        earlier = {array.follows, *(parent.array for parent in array.parents)} - {None}
        assert all(other < k for other in earlier)
        if array.follows is not None:
            assert min(len(array.runs), len(arrays[array.follows].runs)) > 1, "a single run has no place in an array"
        for place, each in enumerate(array.runs):
            assert waits(arrays, k, place) == set(each.needs)


def test_a_hundred_pairs_are_two_arrays():
    parents = [run(f"p{i}") for i in range(100)]
    children = [run(f"c{i}", f"p{i}", package="classification") for i in range(100)]
    arrays = plan([*parents, *children], queued={}, limit=1000)
    assert [len(array.runs) for array in arrays] == [100, 100]
    assert arrays[1].dependency({0: "7"}) == "aftercorr:7"


def test_five_seeds_of_one_parent_are_one_array_after_it():
    seeds = [run(f"s{i}", "p", package="classification") for i in range(5)]
    arrays = plan([run("p"), *seeds], queued={}, limit=1000)
    assert [len(array.runs) for array in arrays] == [1, 5]
    assert arrays[1].dependency({0: "7", Position(0, 0): "7"}) == "afterok:7"


def test_a_child_of_a_queued_run_waits_for_its_job_and_one_of_a_finished_run_for_nothing():
    arrays = plan([run("c", "queued"), run("d", "finished")], queued={"queued": "7_3"}, limit=1000)
    assert [array.dependency({}) for array in arrays] == ["afterok:7_3", None]
