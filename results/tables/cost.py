"""What runs cost, and where published numbers contradict each other."""

import pandas as pd

from results.methods import title
from results.metrics import task_places
from results.published import load_contradictions, load_sources
from results.tables.sheets import Sheet, without_empty
from results.tables.text import data_names, number, records, settings, start

_RUN = ["task", "dataset", "data", "data_name", "model", "recipe", "variant", "framework", "method", "method_title",
        "method_place", "pretrain_recipe", "pretrain_epochs", "pretrain_variant", "epochs", "devices",
        "device"]  # fmt: skip
NOTES = (
    "Device-hours: hours of training times devices that trained together, mean over n runs; of the run alone, "
    "pre-training has lines of its own. They compare runs on the same kind of device only.",
    "Memory is the most that one process held: on the GPU if it trained there, else resident.",
)


def cost_sheet(rows: pd.DataFrame) -> Sheet:
    """Device-hours, images per second and memory of every kind of run, pre-training too.

    Args:
        rows: of collect.
    """
    runs = rows.drop_duplicates("run").assign(device_hours=lambda r: r["seconds"] * r["devices"].fillna(1) / 3600)
    data = (
        runs.groupby(_RUN, dropna=False, sort=False)
        .agg(
            n=("run", "size"),
            device_hours=("device_hours", "mean"),
            images_per_second=("images_per_second", "mean"),
            peak_memory_gib=("peak_memory_bytes", lambda values: values.max() / 2**30),
        )
        .reset_index()
    )
    data["_task"] = task_places(data["task"])
    data = data.sort_values(["_task", "model", "recipe", "variant", "method_place"], kind="stable", ignore_index=True)
    data = data.drop(columns=["_task"])
    names = data_names(data)
    shown = pd.DataFrame(
        [
            {
                "task": row["task"],
                "architecture": row["model"],
                "initialisation": start(row),
                "recipe": f"{row['recipe']} {settings(row['variant'])}".rstrip(),
                "epochs or iterations": number(row["epochs"]),
                "data": name,
                "framework": row["framework"],
                "device": row["device"],
                "devices": number(row["devices"]),
                "n": number(row["n"]),
                "device-hours": number(row["device_hours"], 3),
                "images/s": number(row["images_per_second"], 1),
                "memory (GiB)": number(row["peak_memory_gib"], 2),
            }
            for row, name in zip(records(data), names, strict=True)
        ]
    )
    return Sheet("cost", "Cost", without_empty(shown.astype(str)), data, NOTES)


def contradictions_sheet(published: pd.DataFrame) -> Sheet:
    """Every published number that another source contradicts, side by side.

    Args:
        published: of load_published.
    """
    kinds = load_contradictions().set_index("id")
    titles = load_sources().set_index("key")["title"]
    marked = published[published["contradiction"] != ""].merge(
        kinds, left_on="contradiction", right_index=True, how="left"
    )
    order = {name: place for place, name in enumerate(kinds.index)}
    data = marked.iloc[sorted(range(len(marked)), key=lambda place: order[marked["contradiction"].iloc[place]])]
    shown = []
    for _, group in data.groupby("contradiction", sort=False):
        first = group.iloc[0]
        for place, row in enumerate(records(group)):
            shown.append(
                {
                    "architecture": row["architecture"],
                    "method": title(row["method"]),
                    "data": row["dataset"],
                    "metric": row["metric"],
                    "published": row["printed"],
                    "pre-training epochs": number(row["pretrain_epochs"]),
                    "recipe as printed": row["printed_recipe"],
                    "epochs": number(row["epochs"]),
                    "source": titles[row["source"]],
                    "kind": first["kind"] if not place else "",
                    "what": first["explanation"] if not place else "",
                }
            )
    columns = ["task", *[name for name in data.columns if name not in ("task", "printed")]]
    return Sheet("contradictions", "Contradictions in the published numbers", pd.DataFrame(shown), data[columns])
