import pytest
import timm
import torch
import torchvision
from timm.models.convnext import ConvNeXt, checkpoint_filter_fn
from timm.models.resnet import Bottleneck, ResNet

from backbones import WeightsError, build_classifier, to_detectron2, to_openmixup, to_torchvision
from backbones.weights.files import open_weights
from backbones.weights.keymaps import KEYMAPS, KeyMap, Rule, find_keymap, recognise
from tests.backbones.networks import TINY

FAMILY_OF = {"r50": "resnet", "convnext_t": "convnext", "vit_b": "vit", "deit_s": "vit", "swin_t": "swin"}


def classifier_state(name: str) -> dict[str, torch.Tensor]:
    """A small classifier's tensors, all different: a swap of two could not hide."""
    return filled(build_classifier(name, 3, image_size=64, **TINY[name]))


def plain_vit() -> torch.nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2, num_classes=3)


def filled(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(value.shape, generator=generator) for key, value in net.state_dict().items()}


def states_of(family: str) -> list[dict[str, torch.Tensor]]:
    if family == "resnet v1c":
        small = {"layers": (1, 1, 1, 1), "channels": (4, 8, 16, 32), "stem_type": "deep", "stem_width": 4}
        return [filled(ResNet(Bottleneck, num_classes=3, **small))]
    states = [classifier_state(name) for name, of in FAMILY_OF.items() if of == family and name != "vit_b"]
    return [*states, plain_vit().state_dict()] if family == "vit" else states


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("keymap", KEYMAPS, ids=lambda keymap: f"{keymap.convention}-{keymap.family}")
def test_there_and_back_is_the_identity(keymap):
    for state in states_of(keymap.family):
        assert_same(keymap.to_timm(keymap.from_timm(state)), state)


@pytest.mark.parametrize("keymap", KEYMAPS, ids=lambda keymap: f"{keymap.convention}-{keymap.family}")
def test_foreign_names_are_recognised_and_timms_are_left_alone(keymap):
    for state in states_of(keymap.family):
        assert recognise(state) is None
        foreign = keymap.from_timm(state)
        assert recognise(foreign) is (keymap if keymap.signature else None)


@pytest.mark.parametrize("export", [to_torchvision, to_openmixup])
@pytest.mark.parametrize("name", ["r50", "convnext_t", "swin_t", "deit_s"])
def test_an_exported_file_reads_back_as_the_same_weights(name, export, tmp_path):
    state = classifier_state(name)
    torch.save(export(state), tmp_path / "exported.pth")
    assert_same(open_weights(tmp_path / "exported.pth").state, state)


def test_a_detectron2_file_reads_back_as_the_same_encoder(tmp_path):
    state = classifier_state("r50")
    torch.save({"model": to_detectron2(state)}, tmp_path / "exported.pth")
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    assert_same(open_weights(tmp_path / "exported.pth").state, encoder)


@pytest.mark.parametrize("convention", ["facebook", "sparse facebook"])
def test_convnext_v2_is_read_in_dense_and_in_sparse_names(convention):
    net = ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 12, 16, 20), use_grn=True, ls_init_value=None, num_classes=3)
    state, keymap = filled(net), find_keymap(convention, "convnext")
    foreign = keymap.from_timm(state)
    assert recognise(foreign) is keymap
    assert_same(keymap.to_timm(foreign), state)
    if convention == "facebook":  # timm's own reading of these files
        assert_same(checkpoint_filter_fn(dict(foreign), net), state)
    else:
        shapes = {
            name: list(foreign[name].shape)
            for name in foreign
            if name.startswith(("downsample_layers.1", "stages.1.0"))
        }
        assert shapes == {
            "downsample_layers.1.0.ln.weight": [8], "downsample_layers.1.0.ln.bias": [8],
            "downsample_layers.1.1.kernel": [4, 8, 12], "downsample_layers.1.1.bias": [1, 12],
            "stages.1.0.dwconv.kernel": [49, 12], "stages.1.0.dwconv.bias": [1, 12],
            "stages.1.0.norm.ln.weight": [12], "stages.1.0.norm.ln.bias": [12],
            "stages.1.0.pwconv1.linear.weight": [48, 12], "stages.1.0.pwconv1.linear.bias": [48],
            "stages.1.0.grn.gamma": [1, 48], "stages.1.0.grn.beta": [1, 48],
            "stages.1.0.pwconv2.linear.weight": [12, 48], "stages.1.0.pwconv2.linear.bias": [12],
        }  # fmt: skip
        kernel = state["stages.1.blocks.0.conv_dw.weight"]  # columns first
        assert foreign["stages.1.0.dwconv.kernel"][1, 5] == kernel[5, 0, 1, 0]
        assert foreign["downsample_layers.1.1.kernel"][1, 3, 7] == state["stages.1.downsample.1.weight"][7, 3, 1, 0]


def torchvision_network(family: str) -> torch.nn.Module:
    """A small network of torchvision's own classes, with the shape of TINY's or of plain_vit."""
    models = torchvision.models
    if family == "convnext":
        block = models.convnext.CNBlockConfig
        settings = [block(8, 16, 1), block(16, 24, 1), block(24, 32, 2), block(32, None, 1)]
        return models.ConvNeXt(settings, num_classes=3)
    if family == "swin":
        return models.SwinTransformer(
            [4, 4], 8, [1, 2, 1, 1], [1, 2, 2, 2], [7, 7], stochastic_depth_prob=0, num_classes=3
        )
    if family == "vit":
        return models.VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=3)
    return models.ResNet(models.resnet.Bottleneck, [2, 1, 2, 1], num_classes=3)


def same_in_timm(family: str) -> torch.nn.Module:
    if family == "vit":
        return plain_vit()
    if family == "resnet":
        return build_classifier("r50", 3, layers=(2, 1, 2, 1))
    return build_classifier({"convnext": "convnext_t", "swin": "swin_t"}[family], 3, **TINY[f"{family}_t"])


@pytest.mark.parametrize(("family", "size"), [("resnet", 64), ("convnext", 64), ("swin", 224), ("vit", 32)])
def test_torchvisions_networks_give_the_same_logits_under_timms_names(family, size):
    torch.manual_seed(0)
    reference, net = torchvision_network(family).eval(), same_in_timm(family).eval()
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))  # nothing may hide behind a zero or a one
    state = {name: tensor for name, tensor in reference.state_dict().items() if "relative_position_index" not in name}
    net.load_state_dict(find_keymap("torchvision", family).to_timm(state), strict=True)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected, found = reference(images), net(images)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-6 * max(1.0, expected.abs().max().item())


def test_detectron2_names_are_its_stem_and_res_stages():
    names = to_detectron2(timm.create_model("resnet50").state_dict())
    assert len(names) == 318  # what SparK's converter reports for a ResNet-50
    assert {
        "stem.conv1.weight",
        "stem.conv1.norm.running_var",
        "res2.0.shortcut.weight",
        "res2.0.shortcut.norm.bias",
        "res5.2.conv3.weight",
        "res5.2.conv3.norm.weight",
    } <= names.keys()
    assert not any("layer" in name or "bn" in name or name.startswith("fc") for name in names)


def test_openmixup_names_are_those_of_its_checkpoints():
    vit = to_openmixup(classifier_state("deit_s"))
    assert {
        "backbone.cls_token",
        "backbone.patch_embed.projection.weight",
        "backbone.layers.1.ln2.weight",
        "backbone.layers.1.ffn.layers.0.0.bias",
        "backbone.layers.1.attn.relative_position_bias_table",
        "backbone.layers.0.gamma_1",
        "backbone.ln1.weight",
        "head.fc.weight",
    } <= vit.keys()
    convnext = to_openmixup(classifier_state("convnext_t"))
    assert {
        "backbone.downsample_layers.0.0.weight",
        "backbone.downsample_layers.3.1.bias",
        "backbone.stages.2.1.depthwise_conv.weight",
        "backbone.stages.0.0.pointwise_conv2.weight",
        "backbone.norm3.weight",
        "head.fc.bias",
    } <= convnext.keys()


def test_a_mean_pooled_vits_norm_gets_the_one_name_openmixup_has():
    names = to_openmixup(classifier_state("vit_b"))
    assert "backbone.ln1.weight" in names and not any("fc_norm" in name for name in names)


def test_a_swin_merges_the_same_patches_in_either_order():
    """Channel-major and position-major merging of the same 2x2 neighbourhood must give the same numbers."""
    torch.manual_seed(0)
    state = classifier_state("swin_t")
    converted = to_openmixup(state)
    image = torch.randn(1, 8, 4, 4)
    reduction = converted["backbone.stages.0.downsample.reduction.weight"]
    theirs = torch.nn.functional.unfold(image, kernel_size=2, stride=2).transpose(1, 2) @ reduction.T
    merging = build_classifier("swin_t", 3, image_size=64, **TINY["swin_t"]).layers[1].downsample
    merging.norm = torch.nn.Identity()
    merging.reduction.weight.data.copy_(state["layers.1.downsample.reduction.weight"])
    found = merging(image.permute(0, 2, 3, 1)).flatten(1, 2)
    assert torch.allclose(found, theirs, atol=1e-5)


def test_two_tensors_that_become_one_name_are_refused():
    keymap = KeyMap("some", "net", ("a",), (Rule("a", "c"), Rule("b", "c")))
    with pytest.raises(WeightsError, match="two tensors"):
        keymap.to_timm({"a": torch.zeros(1), "b": torch.ones(1)})


def test_a_network_without_names_elsewhere_is_refused():
    with pytest.raises(WeightsError, match="no detectron2 names are known for vit") as caught:
        to_detectron2(classifier_state("deit_s"))
    assert caught.value.exit_code == 2
    with pytest.raises(WeightsError, match="for this network"):
        to_openmixup({"conv_stem.weight": torch.zeros(1)})
