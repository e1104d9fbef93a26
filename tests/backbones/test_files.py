import builtins
import hashlib
import json
import os
import pickle
import resource
import signal
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from backbones import WeightsError, WeightsFileError, build_backbone, load_weights, read_weights, save_backbone
from backbones.weights.files import open_weights, write_weights
from tests.backbones.networks import tiny
from tests.helpers import run_code

ROOT = Path(__file__).parents[2]


class Payload:
    """Runs print when it is unpickled."""

    def __reduce__(self):
        return builtins.print, ("the payload ran",)


def refused(path: Path) -> str:
    with pytest.raises(WeightsFileError) as caught:
        open_weights(path)
    assert caught.value.exit_code == 5
    assert path.name in str(caught.value) and str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["torch", "torch legacy", "pickle"])
def test_code_in_a_file_is_named_and_not_run(kind, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    content = {"state_dict": {"conv1.weight": torch.zeros(1)}, "meta": Payload()}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"model": {"weight": 1.0}, "author": Payload()}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    message = refused(path)
    assert "contains code (builtins.print)" in message or "contains code (__builtin__.print)" in message  # older files
    assert "if you trust it" in message
    assert "the payload ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "last ten bytes", "a web page"])
def test_a_damaged_file_is_named_with_its_size(suffix, damage, tmp_path):
    path = tmp_path / f"weights{suffix}"
    state = tiny("r50").net.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        write_weights(path, state, {})
    whole = path.read_bytes()
    content = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "last ten bytes": whole[:-10],
        "a web page": b"<html></html>",
    }
    path.write_bytes(content[damage])
    message = refused(path)
    assert f"({len(content[damage])} bytes) is not a whole file of weights" in message


def test_a_missing_file_and_an_empty_run_folder_are_named(tmp_path):
    assert "does not exist" in refused(tmp_path / "nothing.pth")
    assert "no backbone.safetensors: it is no run folder (it has no config.json)" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "its run has not finished" in refused(tmp_path)
    (tmp_path / "finished.json").write_text("{}")
    assert "finished without one" in refused(tmp_path)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is no regular file" in refused(tmp_path / "pipe.pth")


def test_a_file_without_tensors_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {}, "epoch": 3}, path)
    assert "holds no tensors" in refused(path)


def test_a_file_that_contradicts_the_sha256_in_its_name_is_refused(tmp_path):
    content = tmp_path / "weights.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, content)
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    good = content.rename(tmp_path / f"resnet.sha256-{digest[:8]}.pth")
    assert open_weights(good).state.keys() == {"conv1.weight"}
    other = "deadbeef" if digest[:8] != "deadbeef" else "feedbeef"
    assert other in refused(good.rename(tmp_path / f"resnet.sha256-{other}.pth"))


@pytest.mark.parametrize("digits", ["9017441f", "9017441fa8da", "9017441fa8dae39f3ff065aa32282f4e7551c56e"])
def test_a_commit_at_the_end_of_a_name_is_not_taken_for_a_hash_but_mentioned(digits, tmp_path):
    path = tmp_path / f"resnet-{digits}.pth"
    torch.save(tiny("r50").net.state_dict(), path)
    assert f"if the {digits} in its name is meant as a sha256" in str(load_weights(tiny("r50"), path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published = path.rename(tmp_path / f"resnet-{digest[:8]}.pth")  # as torchvision names its files
    assert "sha256" not in str(load_weights(tiny("r50"), published))


def test_a_date_in_a_file_name_is_not_taken_for_a_hash(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet-20220218.pth")
    assert open_weights(tmp_path / "resnet-20220218.pth").state


@pytest.mark.parametrize("container", ["state_dict", "model", "module"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "module.backbone.", "backbone.timm_model.", "encoder_q."]
)
def test_containers_and_prefixes_of_other_libraries_come_off(container, prefix, tmp_path):
    state = {f"{prefix}{name}": tensor for name, tensor in tiny("r50").net.state_dict().items()}
    torch.save({container: state, "epoch": 1, "args": Namespace(lr=0.1)}, tmp_path / "weights.pth")
    assert open_weights(tmp_path / "weights.pth").state.keys() == tiny("r50").net.state_dict().keys()


def test_decoder_neck_and_mask_token_are_dropped_and_listed(tmp_path):
    state = {f"backbone.{name}": tensor for name, tensor in tiny("r50").net.state_dict().items()}
    extra = {"neck.decoder_pred.0.weight", "backbone.mask_token", "backbone.mask_gamma"}
    torch.save({"state_dict": state | {name: torch.zeros(1) for name in extra}}, tmp_path / "full.pth")
    file = open_weights(tmp_path / "full.pth")
    assert file.dropped == ("mask_gamma", "mask_token", "neck.decoder_pred.0.weight")
    assert file.state.keys() == tiny("r50").net.state_dict().keys()


def test_mae_files_lose_their_decoder_only(tmp_path):
    names = ["cls_token", "pos_embed", "blocks.0.attn.qkv.bias", "norm.weight"]
    decoder = ["decoder_pos_embed", "decoder_blocks.0.attn.qkv.bias", "decoder_pred.weight", "mask_token"]
    torch.save({"model": {name: torch.zeros(1) for name in [*names, *decoder]}}, tmp_path / "mae.pth")
    file = open_weights(tmp_path / "mae.pth")
    assert list(file.state) == names
    assert sorted(file.dropped) == sorted(decoder)


def test_spark_files_keep_their_sparse_encoder(tmp_path):
    state = {f"sparse_encoder.sp_cnn.{name}": tensor for name, tensor in tiny("r50").net.state_dict().items()}
    torch.save({"module": state | {"dense_decoder.proj.weight": torch.zeros(1)}}, tmp_path / "spark.pth")
    file = open_weights(tmp_path / "spark.pth")
    assert file.state.keys() == tiny("r50").net.state_dict().keys()
    assert file.dropped == ("dense_decoder.proj.weight",)


def test_the_averaged_copy_is_left_out_or_taken_as_asked(tmp_path):
    state = {"backbone.conv1.weight": torch.zeros(2), "head.fc.weight": torch.zeros(3)}
    averaged = {f"ema_{name.replace('.', '_')}": tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict": state | averaged}, tmp_path / "ft.pth")
    plain = open_weights(tmp_path / "ft.pth")
    assert torch.equal(plain.state["conv1.weight"], torch.zeros(2))
    assert plain.dropped == ("ema_backbone_conv1_weight", "ema_head_fc_weight")
    assert torch.equal(open_weights(tmp_path / "ft.pth", ema=True).state["conv1.weight"], torch.ones(2))
    torch.save({"state_dict": state}, tmp_path / "ft.pth")
    with pytest.raises(WeightsFileError, match="no averaged copy"):
        open_weights(tmp_path / "ft.pth", ema=True)


# --- told by the bytes


def test_the_bytes_say_what_kind_of_file_it_is_not_the_name(tmp_path):
    state = tiny("r50").net.state_dict()
    torch.save(state, tmp_path / "torch.safetensors")
    torch.save(state, tmp_path / "legacy.bin", _use_new_zipfile_serialization=False)
    write_weights(tmp_path / "safetensors.pth", state, {"epochs": 3})
    for path in tmp_path.iterdir():
        assert open_weights(path).state.keys() == state.keys(), path
    assert open_weights(tmp_path / "safetensors.pth").description == {"epochs": 3}


@pytest.mark.parametrize("metadata", ["resnet18.a1_in1k", "[1, 2]", '"r50"', "", "[" * 5000, "{", "null"])
def test_other_tools_may_keep_what_they_like_under_our_key(metadata, tmp_path):
    state = {name: tensor.contiguous() for name, tensor in tiny("r50").net.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors", metadata={"backbone": metadata, "format": "pt"})
    file = open_weights(tmp_path / "w.safetensors")
    assert file.state.keys() == state.keys() and file.description == {}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(100), "compressed by gzip"),
        (b"<!doctype html>", "a web page"),
        (b'{"weight_map": {}}', "a JSON text"),
        (bytes(200), "no torch or safetensors file"),
    ],
)
def test_other_files_are_called_what_they_are(content, named, tmp_path):
    (tmp_path / "weights.pth").write_bytes(content)
    message = refused(tmp_path / "weights.pth")
    assert named in message and "again" not in message


def test_zip_archives_of_other_things_are_called_what_they_are(tmp_path):
    np.savez(tmp_path / "weights.npz", conv=np.zeros(3))
    assert "a zip archive of other things (conv.npy)" in refused(tmp_path / "weights.npz")
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "program.pth"))
    assert "a TorchScript program" in refused(tmp_path / "program.pth")


@pytest.mark.parametrize(
    "prefixes",
    ["module.module.", "_orig_mod.module.", "module._orig_mod.", "model.", "encoder.", "model.encoder.", "net.model.",
     "module.model.backbone.", "network.", "student_backbone.vit."],
)  # fmt: skip
def test_wrappers_come_off_in_whatever_order_until_nothing_changes(prefixes, tmp_path):
    state = {f"{prefixes}{name}": tensor for name, tensor in tiny("r50").net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    report = load_weights(tiny("r50"), tmp_path / "weights.pth")
    assert report.num_loaded == len(state) and report.missing == ()


@pytest.mark.parametrize(("prefix", "beside"), [("model.", "criterion.weight"), ("encoder.", "fc.weight"),
                                                ("module.", "n_averaged")])  # fmt: skip
def test_what_stands_beside_a_wrapped_network_is_dropped(prefix, beside, tmp_path):
    state = {f"{prefix}{name}": tensor for name, tensor in tiny("r50").net.state_dict().items()}
    torch.save({"state_dict": state | {beside: torch.zeros(1)}}, tmp_path / "weights.pth")
    assert load_weights(tiny("r50"), tmp_path / "weights.pth").dropped == (beside,)


def test_a_file_with_two_such_networks_is_refused_by_their_names(tmp_path):
    state = tiny("r50").net.state_dict()
    both = {f"{part}.{name}": tensor for part in ("left", "right") for name, tensor in state.items()}
    torch.save(both, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"several such networks, below 'left\.', 'right\.'"):
        load_weights(tiny("r50"), tmp_path / "weights.pth")


# --- changed since they were written


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def finished_run(folder: Path) -> Path:
    path = folder / "backbone.safetensors"
    save_backbone(path, tiny("r50"), {"method": "a2mim"})
    recorded = {"files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}}
    (folder / "finished.json").write_text(json.dumps(recorded))
    return path


def test_every_flipped_bit_of_a_finished_runs_encoder_is_noticed(tmp_path):
    path = finished_run(tmp_path)
    assert load_weights(tiny("r50"), tmp_path).num_loaded
    size = path.stat().st_size
    for place in (0, 9, 200, size // 3, size // 2, size - 1):
        flip(path, place)
        assert "finished.json" in refused(path)
        with pytest.raises(WeightsFileError, match="is not the file that was written"):
            load_weights(tiny("r50"), tmp_path)
        flip(path, place)
    assert load_weights(tiny("r50"), path).num_loaded


@pytest.mark.parametrize("record", ["", "[]", "garbage", '{"files": {"backbone.safetensors": 5}}', '{"files": []}'])
def test_a_record_that_cannot_be_read_is_not_taken_for_none(record, tmp_path):
    path = finished_run(tmp_path)
    (tmp_path / "finished.json").write_text(record)
    assert "finished.json" in refused(path)


def test_a_run_from_before_hashes_were_recorded_still_loads(tmp_path):
    path = finished_run(tmp_path)
    (tmp_path / "finished.json").write_text('{"metrics": {}}')
    assert load_weights(tiny("r50"), path).num_loaded


def test_every_flipped_bit_of_a_torch_files_tensors_is_noticed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": torch.zeros(10_000)}, path)
    flip(path, 20_000)
    assert "differs from the checksum stored with it" in refused(path)


# --- writing

DESCRIPTION = {"method": "a2mim", "epochs": 300, "mean": [0.485, 0.456, 0.406], "version": "0.1.0"}


def test_the_header_describes_the_encoder_under_one_key(tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, tiny("r50"), DESCRIPTION)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"backbone"}
    assert json.loads(metadata["backbone"]) == {"name": "r50", "image_size": 64, **DESCRIPTION}


def test_a_run_folder_reads_as_its_encoder(tmp_path):
    backbone = tiny("vit_b")
    save_backbone(tmp_path / "backbone.safetensors", backbone, DESCRIPTION)
    state, description = read_weights(tmp_path)
    assert description["method"] == "a2mim"
    expected = backbone.net.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_memory_format_does_not_change_the_file(tmp_path):
    backbone = tiny("r50")
    save_backbone(tmp_path / "a.safetensors", backbone, DESCRIPTION)
    save_backbone(tmp_path / "b.safetensors", backbone.to(memory_format=torch.channels_last), DESCRIPTION)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_two_processes_write_the_same_bytes(tmp_path):
    program = (
        "import sys, torch; from backbones.weights.files import write_weights; torch.manual_seed(5);"
        "state = {name: torch.randn(3, 4) for name in ('b.weight', 'a.weight', 'c')};"
        "write_weights(sys.argv[1], state, {'method': 'a2mim', 'mean': [0.5], 'a': 1, 'z': {'y': 1, 'b': 2}})"
    )
    run_code(program, tmp_path / "one")
    torch.manual_seed(5)
    state = {name: torch.randn(3, 4) for name in ("b.weight", "a.weight", "c")}
    write_weights(tmp_path / "two", state, {"z": {"b": 2, "y": 1}, "method": "a2mim", "a": 1, "mean": [0.5]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, tiny("r50"), DESCRIPTION)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_backbone(path, tiny("r50"), {"loss": float("nan")})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["backbone.safetensors"]


def test_a_full_disk_leaves_no_half_file(tmp_path):
    """A limit on the size of this process's files stands in for the disk: the write fails in the middle."""
    backbone = tiny("r50")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_backbone(tmp_path / "backbone.safetensors", backbone, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_new_network_and_a_loaded_file_do_not_share_memory(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(build_backbone("resnet18", channels=(4, 8, 16, 32)).net.state_dict(), path)
    first, second = open_weights(path).state, open_weights(path).state
    first["conv1.weight"].zero_()
    assert second["conv1.weight"].abs().sum() > 0
