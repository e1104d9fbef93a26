"""The model card of a network for the Hugging Face hub: facts from the header of its weights, and nothing else."""

import json
from pathlib import Path
from typing import Any

from .trained import Trained

_PAPERS = {
    "a2mim": "Li et al., Architecture-Agnostic Masked Image Modeling: From ViT back to CNN, ICML 2023",
    "simmim": "Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022",
}


def write_card(folder: Path, trained: Trained, digest: str) -> None:
    """Write README.md into `folder`; `digest` is the sha256 of the weights."""
    (folder / "README.md").write_text(card(trained, digest))


def card(trained: Trained, digest: str) -> str:
    """The card's text, YAML front matter first. What is not known is not said; the licence is its publisher's word."""
    kind = "image-classification" if trained.num_classes else "image-feature-extraction"
    method = trained.description.get("method")
    tags = [kind, "timm", *([str(method)] if method in _PAPERS else [])]
    front = ["---", "library_name: timm", f"pipeline_tag: {kind}", "tags:", *(f"- {tag}" for tag in tags), "---"]
    rows = [f"| {name} | {value} |" for name, value in _facts(trained, digest)]
    use = [
        "```python",
        "import timm",
        "",
        'net = timm.create_model("hf-hub:YOU/NAME", pretrained=True).eval()',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)",
        "```",
    ]
    paper = [f"Method: {_PAPERS[str(method)]}.", ""] if method in _PAPERS else []
    return "\n".join([*front, "", f"# {trained.model}", "", *paper, "| | |", "|---|---|", *rows, "", *use, ""])


def _facts(trained: Trained, digest: str) -> list[tuple[str, Any]]:
    told, statistics = trained.description, (_numbers(trained.mean), _numbers(trained.std))
    facts: list[tuple[str, Any]] = [
        ("network", trained.model),
        ("parameters", f"{sum(weight.numel() for weight in trained.net.parameters()) / 1e6:.2f} M"),
        ("trained by", told.get("method_title") or told.get("method")),
        ("epochs", told.get("epochs")),
        ("started from", told.get("init")),
        ("images", f"{trained.image_size} pixels, {trained.in_channels} channels"),
        ("mean, standard deviation", f"{statistics[0]}; {statistics[1]}"),
        ("classes", trained.num_classes or None),
        *((f"{name} (at the end)", value) for name, value in _metrics(trained.run_dir).items()),
        ("run", told.get("config_hash")),
        ("suite version", told.get("suite_version")),
        ("sha256", digest),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _metrics(run_dir: Path | None) -> dict[str, Any]:
    """The metrics of a finished run."""
    try:
        found = json.loads((run_dir / "finished.json").read_text())["metrics"] if run_dir else {}
    except (OSError, ValueError, KeyError):
        return {}
    of_the_optimizer = ("learning_rate", "gradient_norm")
    shown = {name: value for name, value in found.items() if name not in of_the_optimizer}
    return {name: f"{value:.4g}" for name, value in shown.items() if isinstance(value, (int, float))}
