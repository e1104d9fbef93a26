"""`python -m benchmarks.deviations > docs/deviations.md`: where every recipe does otherwise than its source."""

from benchmarks.plan import recipes_of
from engine.deviations import of_recipe
from suite_tasks import TASKS

_HEAD = """# Deviations

What each recipe does otherwise than the file it follows; `--help` of the recipe ends with the same list. Settings are
compared with the recipe's own, so a line goes when a default comes to agree with the source; the source's value can
always be given (`--precision float32`).

Of every recipe: random draws are functions of (seed, epoch, sample), so they are not the source's; batch norm is
synchronised wherever there are several GPUs; losses are float32.

This page is written by `python -m benchmarks.deviations`.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for task in TASKS:
        if task.kind == "measurement":
            continue
        module = recipes_of(task.name)
        parts.append(f"## {task.name}\n")
        for name in module.RECIPES:
            lists = list(of_recipe(name, module.RECIPES))
            parts.append(f"### {name}\n")
            parts += [f"From {whose}:\n\n{lines}\n" for whose, lines in lists] or ["A recipe of our own.\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
