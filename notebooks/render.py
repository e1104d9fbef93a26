"""From notebooks/demo.py to demo.ipynb (without outputs) and, executed, to docs/notebook.md with its pictures.

python notebooks/render.py            write demo.ipynb
python notebooks/render.py --execute  run it too, and write docs/notebook.md
"""

import argparse
import ast
import contextlib
import io
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPT, NOTEBOOK = HERE / "demo.py", HERE / "demo.ipynb"
PAGE, PICTURES = HERE.parent / "docs" / "notebook.md", HERE.parent / "docs" / "images" / "notebook"
_MARKDOWN = " [markdown]"


def cells(text: str) -> list[tuple[str, str]]:
    """("markdown" or "code", source) of every cell of a script: cells begin with `# %%`."""
    found = []
    for part in text.split("# %%")[1:]:
        head, _, body = part.partition("\n")
        if head == _MARKDOWN:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body.strip()))
    return found


def notebook(text: str) -> str:
    """A notebook (format 4.5) without outputs."""
    written = []
    for number, (kind, source) in enumerate(cells(text)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number:02}", "metadata": {}}
        cell |= {"execution_count": None, "outputs": []} if kind == "code" else {}
        written.append(cell | {"source": source.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": written, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


class Session:
    """Runs cells one after another in one namespace, as a notebook does."""

    def __init__(self) -> None:
        import matplotlib

        matplotlib.use("Agg")
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, source: str) -> tuple[str, list[Any]]:
        """The text that a cell prints, with the value of its last expression, and its pictures (PIL)."""
        from PIL.Image import Image

        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*non-interactive")  # plt.show() of this backend
            exec(compile(tree, "cell", "exec"), self._names)
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), self._names) if last is not None else None
        pictures = _figures()
        if isinstance(value, Image):
            pictures.append(value)
        elif value is not None:
            printed.write(repr(value) + "\n")
        return printed.getvalue(), pictures


def _figures() -> list[Any]:
    """The figures that a cell drew, as pictures."""
    import matplotlib.pyplot as plt
    from PIL import Image

    found = []
    for number in plt.get_fignums():
        content = io.BytesIO()
        plt.figure(number).savefig(content, format="png", dpi=110, metadata={"Software": None})
        found.append(Image.open(content))
    plt.close("all")
    return found


def render(text: str, page: Path, pictures: Path) -> None:
    """Execute a script cell by cell and write its text, code and what it shows as Markdown with PNG files."""
    session, parts, count = Session(), list[str](), 0
    pictures.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    for kind, source in cells(text):
        if kind == "markdown":
            parts.append(source)
            continue
        printed, shown = session.run(source)
        parts.append(f"```python\n{source}\n```")
        parts += [f"```text\n{printed.strip()}\n```"] if printed.strip() else []
        for picture in shown:
            count += 1
            path = pictures / f"{count:02}.png"
            picture.convert("RGB").quantize(128).save(path, optimize=True)
            parts.append(f"![what the cell above shows]({os.path.relpath(path, page.parent)})")
    seconds = time.process_time() - started
    parts.append(f"Made by `python notebooks/render.py --execute` in {seconds:.0f} seconds of processor time.")
    page.write_text("\n\n".join(parts) + "\n")


def main() -> None:
    """Write the notebook, and the page if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--execute", action="store_true", help="run every cell and write docs/notebook.md")
    asked = parser.parse_args()
    text = SCRIPT.read_text()
    NOTEBOOK.write_text(notebook(text))
    if asked.execute:
        render(text, PAGE, PICTURES)


if __name__ == "__main__":
    main()
