"""The commands as a user gives them: run folders, figures, cache, resuming, refusals."""

import json
import os
import signal
import time

import pandas as pd
import pytest
import torch

from analysis.__main__ import main
from analysis.interactions import measure as interactions
from analysis.progress import Progress
from backbones import build_backbone, save_backbone
from results.figures.draw import draw
from results.runs.collect import read_runs
from results.tables.headlines import headlines
from results.tables.rows import benchmark_table

MODEL = "test_vit"


def encoder(path, seed=0):
    torch.manual_seed(seed)
    path.mkdir(parents=True, exist_ok=True)
    save_backbone(
        path / "backbone.safetensors", build_backbone(MODEL, image_size=32), {"method": "simmim", "epochs": 1}
    )
    return path


def asked(data, out, *more, name="interactions"):
    return [name, *map(str, more), "--data.root", str(data), "--out", str(out), "--image-size", "32"]


SMALL = ["--images", 2, "--pairs", 4, "--contexts", 4, "--grid", 4, "--batch-size", 16]


def test_two_encoders_in_one_figure_each_measured_once(data, tmp_path, capsys, caplog):
    first, second = encoder(tmp_path / "one"), encoder(tmp_path / "two", seed=1)
    out = tmp_path / "out"
    command = asked(data, out, "--init", first, second, *SMALL)
    with caplog.at_level("INFO", logger="mim"):
        assert main(command) == 0
    printed = capsys.readouterr().out.split()
    assert [path.rpartition("/")[2] for path in printed] == ["interactions.csv", "interactions.svg", "interactions.png"]
    table = (out / "interactions.csv").read_text().splitlines()
    assert table[0].startswith("encoder,at,order,J,J_error,J_change,strength,strength_error")
    assert len(table) == 1 + 2 * 13
    runs = sorted(path for path in out.iterdir() if path.is_dir() and not path.name.startswith("."))
    assert [path.name[:17] for path in runs] == ["interactions-one-", "interactions-two-"]
    finished = json.loads((runs[0] / "finished.json").read_text())
    assert finished["readout"].startswith("a linear probe on features of 18 training images")
    passes = finished["forward_passes"]
    assert passes["ratio"] == 1.0
    assert passes["made"] < passes["published"] == 2 * 13 * 4 * 4 * 4
    content = [(out / name).read_bytes() for name in ("interactions.csv", "interactions.svg", "interactions.png")]
    stamp = (runs[0] / "finished.json").stat().st_mtime_ns
    caplog.clear()
    with caplog.at_level("INFO", logger="mim"):
        assert main(command) == 0
    assert caplog.text.count("is known, in") == 2
    assert (runs[0] / "finished.json").stat().st_mtime_ns == stamp
    assert content == [(out / n).read_bytes() for n in ("interactions.csv", "interactions.svg", "interactions.png")]
    encoder(first, seed=2)  # the same folder, other weights
    assert main(command) == 0
    assert len([path for path in out.iterdir() if path.name.startswith("interactions-one-")]) == 2
    assert content[0] != (out / "interactions.csv").read_bytes()
    found = read_runs([out])
    assert not found.rejected
    assert len(found.runs) == 3  # those of the former weights too
    assert set(found.rows["task"]) == {"analysis"} and set(found.rows["method"]) == {"simmim"}
    assert {"J_low", "J_middle", "J_high", "J_change"} == set(found.rows["metric"])
    (drawing,) = draw(found.rows, found.curves)
    assert drawing.name == f"analysis-interactions-{MODEL}"
    assert not headlines(benchmark_table(found.rows))
    assert main([str(runs[1] / "config.json"), "--out", str(out)]) == 0  # a stored configuration, of one encoder
    assert len((out / "interactions.csv").read_text().splitlines()) == 1 + 13


def test_killed_and_continued_it_gives_the_same_files(data, tmp_path, monkeypatch, capsys):
    start = encoder(tmp_path / "one")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(asked(data, whole, "--init", start, *SMALL)) == 0
    monkeypatch.setattr(interactions, "_SAVE_EVERY_S", 0.0)
    child = os.fork()
    if child == 0:
        real = interactions.rewards_of

        def slowly(*args, **options):
            for batch in real(*args, **options):
                time.sleep(0.05)
                yield batch

        monkeypatch.setattr(interactions, "rewards_of", slowly)
        main(asked(data, killed, "--init", start, *SMALL))
        os._exit(0)
    end = time.monotonic() + 60
    while not list(killed.glob("*/coalitions-000001.f64")) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (run,) = (path.parent for path in killed.glob("*/interactions.jsonl"))
    assert len((run / "interactions.jsonl").read_bytes().splitlines()) == 1
    (partial,) = run.glob("coalitions-*.f64")
    with partial.open("ab") as file:
        file.write(b"\0\0\0")  # as if killed in the middle of a number
    assert main(asked(data, killed, "--init", start, *SMALL)) == 0
    for name in ("interactions.csv", "interactions.svg", f"{run.name}/interactions.jsonl", f"{run.name}/metrics.jsonl"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    assert not list(run.glob("coalitions-*"))


def test_progress_tells_the_time_left(caplog, monkeypatch):
    clock = iter([0.0, 10.0, 25.0, 40.0])
    monkeypatch.setattr("analysis.progress.time.monotonic", lambda: next(clock))
    progress = Progress("work", 3000, done=1000)
    with caplog.at_level("INFO", logger="mim"):
        for _ in range(3):
            progress.advance(100)
    assert caplog.messages == ["work: 40.0 %, 8 images/s, 4 min left"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--precision", "bfloat16"], "an interaction, a difference of nearly equal numbers, is lost"),
        (["--precision", "tf32"], "products with 10 bits of mantissa"),
        (["--precision", "half"], "allowed: float32, float64"),
        (["--grid", "2", "--pairs", "7"], "a 2 x 2 grid has 6 within 2 cells"),
        (["--orders", "0.5", "97"], "fractions of n - 2 = 194"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--labels", "x"], "1 --labels for 2 encoders"),
        (["--labels", "x", "x"], "x stands for two encoders"),
        (["--context", "3"], "nearest: --contexts"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_loaded(more, told, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["interactions", "--init", "nowhere", "neither", "--data.root", str(tmp_path), *more])
    assert left.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "more", "code", "told"),
    [
        ("interactions", ["--grid", 40, "--pairs", 2], 2, "grid is 40: images of 32 pixels have fewer"),
        ("robustness", ["--shuffle-grids", 2, 40], 2, "40 patches in a row"),
        ("robustness", ["--readout", "classifier"], 2, "holds no classifier for the 3 classes"),
        ("cam", ["--layer", "nowhere"], 2, "layer nowhere gives no map of features"),
        ("interactions", ["--data.root", "{flat}"], 3, "are in no class folder"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(data, tmp_path, capsys, name, more, code, told):
    flat = data / "train" / "a"
    more = [str(word).format(flat=flat) for word in more]
    with pytest.raises(SystemExit) as left:
        main(asked(data, tmp_path / "out", "--init", "random:test_resnet", "--probe-images", 6, name=name) + more)
    assert left.value.code == code
    assert told in capsys.readouterr().err


def test_what_needs_no_classes_takes_any_folder(data, tmp_path):
    out = tmp_path / "out"
    command = asked(data / "train" / "a", out, "--init", "random:test_resnet", name="fourier")
    assert main(command) == 0
    (finished,) = (json.loads(path.read_text()) for path in out.glob("*/finished.json"))
    assert finished["num_analysed"] == 6


def test_an_encoder_without_classifier_can_be_asked_for_cosines(data, tmp_path):
    out = tmp_path / "out"
    more = ["--reward", "cosine", "--orders", "0", "0.5", "1", "--precision", "float64"]
    assert main(asked(data, out, "--init", f"random:{MODEL}", *SMALL, *more)) == 0
    (finished,) = (json.loads(path.read_text()) for path in out.glob("*/finished.json"))
    assert finished["readout"] == "cosine to the features of the whole image"
    assert finished["forward_passes"]["ratio"] < 1.1
    assert not (out / ".features").exists()


def test_fourier_writes_curves_spectra_and_figures(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(asked(data, out, "--init", f"random:{MODEL}", "random:resnet18", "--labels", "V", "R", name="fourier"))
        == 0
    )
    names = [path.rpartition("/")[2] for path in capsys.readouterr().out.split()]
    assert names == ["fourier.csv", "fourier.svg", "fourier.png", "fourier-spectra.svg", "fourier-spectra.png"]
    table = pd.read_csv(out / "fourier.csv")
    assert list(table["encoder"].value_counts()) == [13, 7]  # maps of one position have no spectrum
    assert table.groupby("encoder")["at"].agg(["min", "max"]).to_numpy().tolist() == [[0, 1], [0, 1]]
    (spectra,) = out.glob("fourier-resnet18*/spectra.csv")
    last = pd.read_csv(spectra).groupby("depth").last()
    ours = table[table["encoder"] == "R"]
    assert last["frequency_pi"].tolist()[:5] == ours["frequency_pi"].tolist()[:5] == [6 / 8] * 3 + [2 / 4] * 2
    assert last["log_amplitude"].tolist()[:5] == ours["high_frequency"].tolist()[:5]
    assert ours["high_frequency"].notna().sum() == 5  # a map of 2 x 2 has no frequency but zero
