"""The rule that says which runs of a graph may start: order, room, failures and stops."""

import pytest

from benchmarks.graph import advance, exit_code

NEEDS = {"p": (), "q": (), "p1": ("p",), "p2": ("p",), "q1": ("q",), "both": ("p1", "q1")}


def play(ends, room):
    """Run the graph to its end, each run ending as `ends` says ("finished" without a word); the order of the starts."""
    states, order = dict.fromkeys(NEEDS, "pending"), []
    for _ in range(20):
        changes = advance(NEEDS, states, room=room - list(states.values()).count("running"))
        states |= changes
        order += [name for name, state in changes.items() if state == "running"]
        running = [name for name, state in states.items() if state == "running"]
        assert len(running) <= room
        if not running:
            return states, order
        states[running[0]] = ends.get(running[0], "finished")
    raise AssertionError("it does not come to its end")


@pytest.mark.parametrize("room", [1, 2, 10])
def test_every_run_starts_once_and_after_what_it_needs(room):
    states, order = play({}, room)
    assert sorted(order) == sorted(NEEDS)
    assert all(order.index(need) < order.index(name) for name, needs in NEEDS.items() for need in needs)
    assert exit_code(states) == 0


def test_a_failure_blocks_its_descendants_and_nothing_else():
    states, order = play({"p": "failed"}, 2)
    assert [name for name, state in states.items() if state == "blocked"] == ["p1", "p2", "both"]
    assert order == ["p", "q", "q1"]
    assert exit_code(states) == 1


def test_what_waits_for_a_run_that_was_stopped_is_stopped_too():
    states, _ = play({"q": "stopped"}, 2)
    assert [name for name, state in states.items() if state == "stopped"] == ["q", "q1", "both"]
    assert exit_code(states) == 75


def test_while_stopping_nothing_starts_and_what_runs_goes_on():
    states = {**dict.fromkeys(NEEDS, "pending"), "p": "running", "q": "finished"}
    assert advance(NEEDS, states, room=9, stopping=True) == dict.fromkeys(("p1", "p2", "q1", "both"), "stopped")


def test_a_need_outside_the_graph_is_finished_and_without_room_nothing_starts():
    assert advance({"child": ("elsewhere",)}, {"child": "pending"}, room=1) == {"child": "running"}
    assert advance({"child": ("elsewhere",)}, {"child": "pending"}, room=0) == {}
