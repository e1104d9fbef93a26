"""Panels of a run: what they show, that they repeat, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from engine import config
from engine.data.images import index_images
from engine.run.checkpoint import Snapshot, save
from pretrain.build import build_model
from pretrain.recipes import demo
from pretrain.visualize import COLUMNS, load_run, main, panel_batch, save_panel


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A small pre-training run as its folder looks: images, configuration and one checkpoint."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(11):
        pixels = rng.integers(0, 256, (80, 100 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02}.png")
    base = demo("test_convnext")
    run = replace(base, image_size=64, data=replace(base.data, root=str(root)))
    folder = tmp_path_factory.mktemp("run")
    stored = {"package": "pretrain", "recipe": "demo", "config": config.to_dict(run)}
    (folder / "config.json").write_text(json.dumps(stored))
    torch.manual_seed(0)
    state = build_model(run).state_dict()
    save(folder, Snapshot(step=7, model=state, training={}, metrics_offset=0))
    return folder


def leave(arguments):
    """The exit code of the command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def test_a_run_shows_the_same_images_and_masks_every_time(run_dir):
    _, run, _ = load_run(run_dir)
    first, second = (panel_batch(run, index_images(run.data.root, labelled=False)) for _ in range(2))
    images, mask = first
    assert images.shape == (8, 3, 64, 64)
    assert mask.shape == (8, 2, 2)
    assert (mask.sum((1, 2)) == 3).all()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    other_seed = panel_batch(replace(run, seed=1), index_images(run.data.root, labelled=False))
    assert torch.equal(other_seed[0], images)
    assert not torch.equal(other_seed[1], mask)


def test_the_command_writes_the_same_bytes_twice(run_dir, tmp_path, capsys):
    assert leave([run_dir]) == 0
    path = run_dir / "panels" / "step_00000007.png"
    assert capsys.readouterr().out.strip() == str(path)
    assert leave([run_dir, "--output", tmp_path / "again.png"]) == 0
    assert path.read_bytes() == (tmp_path / "again.png").read_bytes()
    assert not list(path.parent.glob(".*"))


def test_a_panel_shows_original_masked_prediction_and_composite(run_dir, tmp_path):
    model, run, _ = load_run(run_dir)
    torch.nn.init.constant_(model.decoder.projection.bias, 0.5)
    images, mask = panel_batch(run, index_images(run.data.root, labelled=False))
    save_panel(tmp_path / "panel.png", model, images, mask)
    panel = torch.from_numpy(np.array(Image.open(tmp_path / "panel.png"))).permute(2, 0, 1)
    original, masked, prediction, composite = (
        torch.stack([panel[:, 22 + y * 68 : 86 + y * 68, 4 + x * 68 : 68 + x * 68] for y in range(8)])
        for x in range(len(COLUMNS))
    )
    hidden = mask.bool().repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand_as(original)
    assert torch.equal(original, images)
    assert torch.equal(masked[~hidden], images[~hidden])
    assert len(masked[0, 0][hidden[0, 0]].unique()) == 1
    assert torch.equal(composite[~hidden], images[~hidden])
    assert torch.equal(composite[hidden], prediction[hidden])


def test_given_images_are_shown_instead(run_dir, tmp_path):
    root = load_run(run_dir)[1].data.root
    files = [f"{root}/01.png", f"{root}/03.png"]
    assert leave([run_dir, *files, "--output", tmp_path / "two.png"]) == 0
    assert Image.open(tmp_path / "two.png").size == (4 * 68 + 4, 22 + 2 * 68 + 4)


def test_an_encoder_without_decoder_is_refused(run_dir, tmp_path, capsys):
    exported = tmp_path / "backbone.safetensors"
    exported.write_bytes(b"")
    for place in (exported, tmp_path):
        assert leave([place]) == 2
        assert "has no decoder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "package, code, message",
    [("classification", 2, "holds a classification run"), ("pretrain", 5, "holds no checkpoint")],
)
def test_a_folder_that_cannot_be_drawn_is_refused(tmp_path, capsys, package, code, message):
    stored = {"package": package, "recipe": "demo", "config": config.to_dict(demo("test_convnext"))}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert leave([tmp_path]) == code
    assert message in capsys.readouterr().err


def test_a_missing_folder_and_a_broken_image_end_with_their_exit_codes(run_dir, tmp_path, capsys):
    assert leave([tmp_path / "nowhere"]) == 2
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert leave([run_dir, broken]) == 3
    assert "broken.png" in capsys.readouterr().err


def test_a_panel_that_cannot_be_written_does_not_end_the_run(run_dir, tmp_path, caplog):
    model, run, _ = load_run(run_dir)
    (tmp_path / "file").write_text("in the way")
    images, mask = panel_batch(run, index_images(run.data.root, labelled=False))
    assert not save_panel(tmp_path / "file" / "panel.png", model, images[:1], mask[:1])
    assert "cannot write the panel" in caplog.text
    assert leave([run_dir, "--output", tmp_path / "file" / "panel.png"]) == 5
