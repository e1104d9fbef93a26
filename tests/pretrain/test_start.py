"""Pre-training that goes on from other weights: what is kept of them, what begins anew, and what tables make of it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import WeightsError, WeightsFileError, build_backbone
from engine.config import from_dict, to_dict
from engine.errors import ConfigError, StopRequested
from pretrain.build import build_model
from pretrain.config import PretrainConfig
from pretrain.methods import a2mim, simmim
from pretrain.recipes import demo
from pretrain.start import load
from pretrain.train import train
from results.runs.collect import collect
from tests.helpers import assert_same_bytes
from tests.pretrain.published_networks import METHODS, Case
from tests.results.runs import tuned


def recipe(method: str, init: str) -> PretrainConfig:
    return replace({"a2mim": a2mim, "simmim": simmim}[method].METHOD.for_family("resnet", "r50"), init=init)


def released(case: Case) -> dict[str, torch.Tensor]:
    """The whole checkpoint of a golden case under OpenMixup's names."""
    state = {}
    for _, name, shape, kind, mean, deviation, seed in case.rows:
        values = np.random.RandomState(seed).standard_normal(int(np.prod(shape))).reshape(shape)
        values = np.abs(values) if kind == "absnormal" else values
        state[name] = torch.from_numpy(np.float32(mean + deviation * values))
    return state


@pytest.mark.parametrize("name", ["tiny_a2mim_r50_l3_init", "tiny_a2mim_vit_l0", "tiny_simmim_vit"])
def test_a_whole_released_checkpoint_gives_the_published_losses(name, tmp_path):
    case = Case(name)
    torch.save({"state_dict": released(case), "meta": {"epoch": 300}}, tmp_path / "full.pth")
    model = METHODS[name]()
    report = load(model, recipe(name.split("_")[1], str(tmp_path / "full.pth")), str(tmp_path / "full.pth"))
    assert (report.kept, report.fresh, report.dropped) == (("token", "decoder"), (), ())
    assert str(report).startswith("a whole pre-training: token and decoder kept; ")
    model.train(case.mode == "train")
    total = sum(model(case.images_bchw, case.mask_bgg).values()).item()
    assert total == pytest.approx(case.numbers["total"], rel=1e-5)


TINY = {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 4}


def small_model(method: str, **token):
    """A published ViT made small, in a method's model; (model, configuration)."""
    config = recipe(method, "given")
    options = replace(config.options, token=replace(config.options.token, stage=0, form="replace", **token))
    config = replace(config, model="vit_s", options=options)
    encoder = build_backbone("vit_s", image_size=64, **TINY)
    return {"a2mim": a2mim, "simmim": simmim}[method].build(encoder, replace(config, image_size=64)), config


def others(model, kind: str) -> dict:
    """What other code's files hold beside the encoder of `model`."""
    encoder = {name: torch.rand_like(t) for name, t in model.encoder.net.state_dict().items() if t.is_floating_point()}
    decoder = {
        f"decoder.0.{part}": torch.rand_like(getattr(model.decoder.projection, part)) for part in ("weight", "bias")
    }
    if kind == "SimMIM":
        inside = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
        return {"model": inside | decoder | {"encoder.mask_token": torch.rand(1, 1, 64)}}
    if kind == "A2MIM's, imported":
        beside = {"mask_token": torch.rand(1, 64, 1, 1)} | {
            f"neck.decoder_pred.0.{part}": torch.rand_like(tensor)
            for part, tensor in model.decoder.projection.state_dict().items()
        }
        return encoder | {f"beside.{name}": tensor for name, tensor in beside.items()}
    if kind == "MAE":  # its mask token and decoder are no encoder's, whatever their size
        names = ("decoder_embed.weight", "decoder_pred.weight", "decoder_pos_embed")
        return {"model": encoder | {name: torch.rand(3) for name in names} | {"mask_token": torch.rand(1, 1, 64)}}
    if kind == "SparK":
        inside = {f"sparse_encoder.sp_cnn.{name}": tensor for name, tensor in encoder.items()}
        return {
            "module": inside | {"dense_decoder.proj.weight": torch.rand(3), "mask_tokens.0": torch.rand(1, 64, 1, 1)}
        }
    if kind == "a wider decoder":
        return {
            "state_dict": {f"backbone.{n}": t for n, t in encoder.items()}
            | {"neck.decoder.0.weight": torch.rand(9, 64, 1, 1), "neck.decoder.0.bias": torch.rand(9)}
        }
    return {"state_dict": encoder}


@pytest.mark.parametrize(
    ("kind", "kept", "said"),
    [
        ("SimMIM", ("token", "decoder"), "a whole pre-training: token and decoder kept"),
        ("A2MIM's, imported", ("token", "decoder"), "a whole pre-training: token and decoder kept"),
        ("MAE", (), "alone of a whole pre-training; begun anew: token (not in the weights); decoder (the weights"),
        ("SparK", (), "token (the weights have another, with mask_tokens.0); decoder (the weights have another, with "),
        ("a wider decoder", (), "decoder (projection.weight is [9, 64, 1, 1] there, [768, 64, 1, 1] here)"),
        ("an encoder", (), "an encoder alone; begun anew: token (not in the weights); decoder (not in the weights); "),
    ],
)  # fmt: skip
def test_it_says_what_is_kept_and_why_the_rest_begins_anew(kind, kept, said, tmp_path):
    model, config = small_model("simmim")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file = others(model, kind)
    torch.save(file, tmp_path / "other.pth")
    report = load(model, config, str(tmp_path / "other.pth"))
    assert report.kept == kept and said in str(report)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"encoder", *kept}
    if kind == "SimMIM":
        assert torch.equal(model.token.mask_token.flatten(), file["model"]["encoder.mask_token"].flatten())


def test_numbers_that_no_decoder_has_are_refused_and_nothing_is_loaded(tmp_path):
    model, config = small_model("simmim")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    file = others(model, "SimMIM")
    file["model"]["decoder.0.bias"][3] = torch.nan
    torch.save(file, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"not finite: decoder.projection.bias \(1 of 768 values\)"):
        load(model, config, str(tmp_path / "other.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder, configuration maker): SimMIM and A2MIM from random weights, A2MIM from each."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "images").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")

    def make(method: str, **changes) -> PretrainConfig:
        config = demo("test_resnet", method)
        data = replace(config.data, root=str(folder / "images"), num_workers=0)
        settings = {"epochs": 1, "batch_size": 4, "checkpoint_every": 1, "log_every": 1, "visualize_every_epochs": 0}
        return replace(config, data=data, **{**settings, **changes})

    train(make("simmim"), folder / "simmim", recipe="demo")
    train(make("a2mim"), folder / "a2mim", recipe="demo")
    for origin in ("simmim", "a2mim"):
        train(make("a2mim", init=str(folder / origin)), folder / f"a2mim-{origin}", recipe="demo")
    return folder, make


def record(run_dir, name: str = "initialisation.json") -> dict:
    return json.loads((run_dir / name).read_text())


def test_a_run_goes_on_with_its_decoder_and_token_where_they_fit(runs):
    folder, _ = runs
    whole, other = record(folder / "a2mim-a2mim"), record(folder / "a2mim-simmim")
    assert (whole["kept"], whole["fresh"]) == (["token", "decoder"], [])
    assert (other["kept"], other["fresh"]) == (["decoder"], ["token (the weights lack its mask_gamma)"])
    assert record(folder / "a2mim-simmim", "finished.json")["method"]["start"]["kept"] == ["decoder"]
    assert record(folder / "a2mim-simmim", "config.json")["config"]["init"] == str(folder / "simmim")
    first, begun = (
        json.loads((folder / name / "metrics.jsonl").read_text().split("\n")[0]) for name in ("a2mim-a2mim", "a2mim")
    )
    assert first["loss"] < begun["loss"]


def test_the_encoder_alone_of_a_run_is_taken_from_its_file(runs):
    folder, make = runs
    config = make("a2mim", init=str(folder / "a2mim" / "backbone.safetensors"))
    report = load(build_model(config), config, config.init)
    assert report.kept == () and str(report).startswith("an encoder alone; begun anew: token (not in the weights)")
    checkpoint = max((folder / "a2mim" / "checkpoints").glob("[0-9]*")) / "model.safetensors"
    assert load(build_model(config), config, str(checkpoint)).kept == ("token", "decoder")


def test_a_token_of_another_stage_begins_anew(runs):
    folder, make = runs
    config = make("simmim", init=str(folder / "simmim"))
    form = replace(config.options.token, form="add")
    report = load(build_model(config), replace(config, options=replace(config.options, token=form)), config.init)
    assert report.kept == ("decoder",) and report.fresh == ("token (form replace there, add here)",)


def test_a_checkpoint_that_is_not_of_this_encoder_is_not_used(runs, tmp_path):
    folder, make = runs
    shutil.copytree(folder / "a2mim", tmp_path / "mixed")
    for name in ("backbone.safetensors", "finished.json"):
        shutil.copy(folder / "a2mim-a2mim" / name, tmp_path / "mixed" / name)
    config = make("a2mim", init=str(tmp_path / "mixed"))
    assert load(build_model(config), config, config.init).kept == ()


def test_a_run_that_is_interrupted_ends_with_the_same_bytes(runs, tmp_path, monkeypatch):
    folder, make = runs
    config = make("a2mim", init=str(folder / "simmim"))
    steps = []

    def stopping(model, batch):
        steps.append(1)
        if len(steps) == 2:
            raise StopRequested("stopped")
        return model(batch["image"], batch["mask"])

    with monkeypatch.context() as patch, pytest.raises(StopRequested):
        patch.setattr("pretrain.train.compute_losses", stopping)
        train(config, tmp_path / "run", recipe="demo")
    train(config, tmp_path / "run", recipe="demo", resume=True)
    assert_same_bytes(tmp_path / "run", folder / "a2mim-simmim")


def test_weights_that_are_not_there_are_refused_before_training(runs, tmp_path):
    _, make = runs
    with pytest.raises(WeightsFileError, match=r"nothing\.pth does not exist"):
        train(make("a2mim", init="nothing.pth"), tmp_path / "run", recipe="demo")
    with pytest.raises(ConfigError, match="init is not given"):
        train(make("a2mim", init=""), tmp_path / "other", recipe="demo")


def test_a_configuration_from_before_init_reads_as_a_random_start(runs):
    _, make = runs
    stored = to_dict(make("a2mim"))
    del stored["init"]
    assert from_dict(PretrainConfig, stored).init == "none"


def test_tables_keep_it_apart_from_runs_from_random_weights(runs, tmp_path):
    folder, _ = runs
    for start in ("a2mim", "a2mim-simmim", "a2mim-a2mim"):
        tuned(folder / f"fine-{start}", init=str(folder / start))
    rows, rejected = collect([folder])
    assert [run for run in rejected if run.run_dir.name != "images"] == []
    method = dict(zip(rows["run"].map(lambda run: run.rpartition("/")[2]), rows["method"], strict=True))
    named = {"a2mim": "a2mim", "a2mim-simmim": "a2mim from simmim", "a2mim-a2mim": "a2mim from a2mim"}
    assert {run: method[run] for run in named} == named
    assert {run: method[f"fine-{run}"] for run in named} == named
    titles = dict(zip(rows["method"], rows["method_title"], strict=True))
    assert titles["a2mim from simmim"] == "A2MIM from SimMIM"
    for path in folder.glob("fine-*"):  # also where the run that the weights are of is not there any more
        shutil.rmtree(path)
