"""What each task is judged by and how people write it: the questions that tables and figures ask of suite_tasks."""

from collections.abc import Iterable, Sequence

from suite_tasks import TASKS, Topic, find, of_kind

PRETRAINING = tuple(entry.name for entry in of_kind("pretraining"))
"""Tasks whose numbers compare nothing: they are not in tables of results."""
HEADLINES = frozenset(name for entry in TASKS for name in entry.headline)
"""Every metric that some task is judged by."""
_LABELS = {name: text for entry in TASKS for name, text in entry.labels.items()}
_ORDER = [entry.name for entry in TASKS]


def label(metric: str) -> str:
    """How people write a metric of a run, with the protocol it was measured by; its own name where it has no other."""
    return _LABELS.get(metric, metric)


def curve_label(metric: str) -> str:
    """The same for what was measured again and again: without a protocol, which chooses one of the values."""
    return label(metric).partition(" (")[0]


def measures(task: str) -> bool:
    """Whether a task only looks at an encoder, of which nothing is trained."""
    return task in {entry.name for entry in of_kind("measurement")}


def bounds_of(metric: str, known: Iterable[str]) -> tuple[str, str] | None:
    """The names of the ends of a metric's interval over images, if both are known."""
    low, high = f"{metric}_low", f"{metric}_high"
    return (low, high) if {low, high} <= set(known) else None


def without_bounds(known: Sequence[str]) -> list[str]:
    """The metrics that are no end of another one's interval."""
    ends = {end for name in known for end in bounds_of(name, known) or ()}
    return [name for name in known if name not in ends]


def axis_label(task: str, text: str) -> str:
    """The label of an axis for a task's numbers, with their unit if they have one."""
    return f"{text}, %" if find(task).percent else text


def headline(task: str, metrics: Sequence[str]) -> str:
    """The metric that a task is judged by, of those there are (at least one)."""
    return next((name for name in find(task).headline if name in metrics), metrics[0])


def talked_about(task: str) -> tuple[str, ...]:
    """The metrics that tables show of a task; () for one that shows all."""
    entry = find(task)
    return (*entry.headline, *entry.others)


def shown_of(task: str, metrics: Sequence[str]) -> list[str]:
    """The metrics of a task that people see, of those there are: its headline first, all of a task without one."""
    return [name for name in talked_about(task) if name in metrics] or list(metrics)


def topics() -> tuple[Topic, ...]:
    """What papers print numbers of."""
    return tuple(topic for entry in TASKS for topic in entry.topics)


def topic_of(task: str, *, probe: bool) -> Topic | None:
    """What a run's numbers are compared with, None for nothing: of a frozen encoder another than of a trained one."""
    return next((topic for topic in find(task).topics if topic.probes == probe), None)


def length_of(topic: str) -> str:
    """What the training of a topic, or of a task without one, is counted in."""
    return next((entry for entry in TASKS if topic in {each.name for each in entry.topics}), find(topic)).length


def task_place(task: str) -> tuple[int, str]:
    """Key to sort tasks by: those of the table in its order, then others by name."""
    return (_ORDER.index(task) if task in _ORDER else len(_ORDER), task)


def task_places(tasks: Iterable[str]) -> list[int]:
    """For each task its place among them in the order of reading."""
    found = list(tasks)
    order = {task: place for place, task in enumerate(sorted(set(found), key=task_place))}
    return [order[task] for task in found]
