import copy

import pytest
import timm
import torch
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from backbones import Backbone, BackboneError, build_backbone, build_classifier
from tests.backbones.networks import OTHERS, TINY, full_size, small, tiny

ALL = (*TINY, *OTHERS)


def images(size: int = 64, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


# --- features


@pytest.mark.parametrize("name", ALL)
def test_channels_and_strides_are_those_of_the_real_maps(name):
    backbone = small(name).eval()
    with torch.no_grad():
        maps = backbone.features(images())
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize("name", [name for name in ALL if "vit" not in name and "deit" not in name])
def test_networks_with_stages_give_the_four_detection_strides(name):
    assert small(name).strides == (4, 8, 16, 32)


def test_a_twelve_block_vit_gives_the_maps_after_blocks_3_5_7_and_11():
    backbone = build_backbone("vit_b", image_size=32, embed_dim=16, depth=12, num_heads=2).eval()
    outputs = {}
    for index, block in enumerate(backbone.net.blocks):
        block.register_forward_hook(lambda _, __, output, index=index: outputs.update({index: output}))
    with torch.no_grad():
        maps = backbone.features(images(32))
    assert backbone.strides == (16, 16, 16, 16)
    for index, feature_map in zip((3, 5, 7, 11), maps, strict=True):
        assert torch.equal(feature_map.flatten(2).transpose(1, 2), outputs[index][:, 1:])


@pytest.mark.parametrize("name", ["r50", "convnext_t", "swin_t", "resnet18"])
def test_hierarchical_networks_take_images_of_another_size(name):
    backbone = small(name).eval()
    with torch.no_grad():
        maps = backbone.features(torch.randn(1, 3, 96, 160))
    assert [tuple(m.shape[2:]) for m in maps] == [(24, 40), (12, 20), (6, 10), (3, 5)]


def test_only_convolutional_networks_ask_for_channels_last():
    assert {name for name in ALL if small(name).is_cnn} == {
        "r50",
        "convnext_t",
        "resnet18",
        "regnety_002",
        "efficientnet_b0",
        "mobilenetv3_small_100",
        "convnext_atto",
    }


# --- the final map


@pytest.mark.parametrize("name", ALL)
def test_the_final_map_is_nchw_at_the_last_stride(name):
    backbone = small(name).eval()
    with torch.no_grad():
        final = backbone(images())
    assert final.shape[2:] == backbone.features(images())[-1].shape[2:]
    assert final.ndim == 4


def test_the_final_map_of_a_vit_is_its_normalised_patch_tokens_without_the_class_token():
    backbone = tiny("vit_b").eval()
    with torch.no_grad():
        tokens = backbone.net.forward_features(images())
        final = backbone(images())
    assert tokens.shape == (2, 17, 32)
    assert torch.equal(final.flatten(2).transpose(1, 2), tokens[:, 1:])
    assert torch.allclose(tokens.mean(-1), torch.zeros(2, 17), atol=1e-5)  # normalised


def test_the_final_map_of_a_convnext_is_normalised_at_every_position():
    backbone = tiny("convnext_t").eval()
    with torch.no_grad():
        final = backbone(images())
    assert torch.allclose(final.mean(1), torch.zeros(2, 2, 2), atol=1e-5)
    assert torch.allclose(final.var(1, unbiased=False), torch.ones(2, 2, 2), atol=1e-3)


def test_the_final_map_of_a_resnet_is_the_output_of_layer4():
    backbone = tiny("r50").eval()
    with torch.no_grad():
        assert torch.equal(backbone(images()), backbone.features(images())[-1])


@pytest.mark.parametrize("name", ["r50", "swin_t", "deit_s", "resnet18", "mobilenetv3_small_100"])
def test_pooling_the_final_map_gives_the_logits_of_the_same_network_with_its_classifier(name):
    """Where pooling comes after the norm, backbone + pooling + head must be timm's classifier."""
    torch.manual_seed(0)
    options = TINY.get(name, {})
    classifier = build_classifier(name, 5, image_size=64, **options).eval()
    backbone = Backbone(copy.deepcopy(classifier)).eval()
    with torch.no_grad():
        expected = classifier(images())
        final = backbone(images())
        if name == "deit_s":  # the class token's head: compare the patch tokens instead
            assert torch.equal(final.flatten(2).transpose(1, 2), classifier.forward_features(images())[:, 1:])
            return
        found = classifier.forward_head(final.permute(0, 2, 3, 1) if name == "swin_t" else final)
    assert torch.allclose(found, expected, atol=1e-6)


# --- entries


@pytest.mark.parametrize("name", ALL)
def test_an_entry_shows_maps_with_its_channels_and_stride(name):
    backbone = small(name).eval()
    for k in range(3):
        entry, seen = backbone.entry(k), []
        handle = entry.attach(lambda x, seen=seen: seen.append(x) or x)
        with torch.no_grad():
            backbone(images())
        handle.remove()
        assert [tuple(x.shape) for x in seen] == [(2, entry.channels, 64 // entry.stride, 64 // entry.stride)]


@pytest.mark.parametrize("name", ALL)
def test_an_insert_that_changes_nothing_leaves_the_output_bit_equal(name):
    backbone = small(name).eval()
    with torch.no_grad():
        before = backbone(images())
        for k in range(3):
            backbone.entry(k).attach(lambda x: x)
        assert torch.equal(backbone(images()), before)


@pytest.mark.parametrize("name", ALL)
def test_zeros_at_an_entry_make_the_output_independent_of_the_image(name):
    """The whole network passes through the place: nothing of the image goes round it but a ViT's class token."""
    backbone = small(name).eval()
    backbone.entry(0).attach(torch.zeros_like)
    with torch.no_grad():
        one, other = backbone(images()), backbone(torch.rand(2, 3, 64, 64))
    assert torch.equal(one, other)
    assert torch.equal(one[0], one[1])


PUBLISHED_ENTRIES = [
    # name, k, channels, stride: the feature map that receives the token, in the full-size networks at 224 px
    ("r50", 0, 64, 4),
    ("r50", 1, 256, 4),
    ("r50", 2, 512, 8),
    ("r50", 3, 1024, 16),
    ("convnext_t", 0, 96, 4),
    ("convnext_t", 3, 768, 32),
    ("vit_b", 0, 768, 16),
    ("vit_b", 12, 768, 16),
    ("swin_t", 0, 96, 4),
    ("swin_t", 1, 96, 4),
    ("swin_t", 4, 768, 32),
]


@pytest.mark.parametrize(("name", "k", "channels", "stride"), PUBLISHED_ENTRIES)
def test_published_entries_have_the_published_channels_and_strides(name, k, channels, stride):
    entry = full_size(name).entry(k)
    assert (entry.channels, entry.stride) == (channels, stride)


def spy(backbone: Backbone, stage: int | str) -> torch.Tensor:
    """The map that a method sees at `stage`."""
    seen: list[torch.Tensor] = []
    handle = backbone.entry(stage).attach(lambda x: seen.append(x) or x)
    with torch.no_grad():
        backbone(images())
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_resnet_entry_k_is_the_input_of_the_layer_after_k(k):
    backbone = tiny("r50").eval()
    net = backbone.net
    with torch.no_grad():
        x = net.maxpool(net.act1(net.bn1(net.conv1(images()))))
        for index in range(1, k + 1):
            x = getattr(net, f"layer{index}")(x)
    assert torch.equal(spy(backbone, k), x)
    assert torch.equal(spy(backbone, f"layer{k + 1}"), x)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_convnext_entry_k_is_behind_the_downsampling_and_before_the_blocks_of_stage_k(k):
    backbone = tiny("convnext_t").eval()
    net = backbone.net
    with torch.no_grad():
        x = net.stem(images())
        for stage in net.stages[:k]:
            x = stage(x)
        x = net.stages[k].downsample(x)
    assert torch.equal(spy(backbone, k), x)


def test_vit_entry_0_is_the_patch_embedding_before_positions():
    backbone = tiny("vit_b").eval()
    with torch.no_grad():
        patches = backbone.net.patch_embed(images())
    assert torch.equal(spy(backbone, 0).flatten(2).transpose(1, 2), patches)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_vit_entry_k_is_the_patch_tokens_before_block_k_minus_1(k):
    backbone = tiny("vit_b").eval()
    net = backbone.net
    with torch.no_grad():
        x = net.patch_embed(images())
        x = torch.cat([net.cls_token.expand(2, -1, -1), x], dim=1) + net.pos_embed
        for block in net.blocks[: k - 1]:
            x = block(x)
    assert torch.equal(spy(backbone, k).flatten(2).transpose(1, 2), x[:, 1:])


def test_vit_maps_keep_rows_and_columns():
    backbone = tiny("vit_b").eval()
    with torch.no_grad():
        conv = backbone.net.patch_embed.proj(images())  # (B, C, h, w) by construction
    assert torch.equal(spy(backbone, 0), conv)


def test_swin_entries_are_behind_the_patch_embedding_and_each_patch_merging():
    backbone = tiny("swin_t").eval()
    net = backbone.net
    with torch.no_grad():
        x = net.patch_embed(images())
        assert torch.equal(spy(backbone, 0), x.permute(0, 3, 1, 2))
        assert torch.equal(spy(backbone, 1), x.permute(0, 3, 1, 2))
        merged = net.layers[1].downsample(net.layers[0](x))
    assert torch.equal(spy(backbone, 2), merged.permute(0, 3, 1, 2))


def test_a_change_at_one_patch_stays_at_that_patch():
    """The map goes back where it came from: row and column of a change are those of the view."""
    for name in ("r50", "convnext_t", "vit_b", "swin_t"):
        backbone, changed = tiny(name).eval(), []
        entry = backbone.entry(1)

        def insert(x):
            x = x.clone()
            x[:, :, 1, 0] = 7.0
            return x

        entry.attach(insert)
        entry.attach(lambda x, changed=changed: changed.append(x) or x)
        with torch.no_grad():
            backbone(images())
        seven = (changed[0] == 7.0).all(dim=1)
        assert seven[:, 1, 0].all(), name
        assert seven.sum() == 2, name


def test_the_class_token_goes_round_an_insert():
    backbone, cls = tiny("vit_b").eval(), []
    backbone.entry(1).attach(torch.zeros_like)
    backbone.net.blocks[0].register_forward_pre_hook(lambda _, inputs: cls.append(inputs[0]))
    with torch.no_grad():
        backbone(images())
        expected = backbone.net.cls_token + backbone.net.pos_embed[:, :1]
    assert torch.equal(cls[0][:, :1], expected.expand(2, -1, -1))
    assert not cls[0][:, 1:].any()


def test_gradients_reach_what_is_inserted():
    for name in ("r50", "convnext_t", "vit_b", "swin_t"):
        backbone = tiny(name)
        entry = backbone.entry(1)
        token = nn.Parameter(torch.zeros(1, entry.channels, 1, 1))
        entry.attach(lambda x, token=token: x + token)
        backbone(images()).square().sum().backward()
        assert token.grad is not None and token.grad.abs().sum() > 0, name


def test_entries_that_do_not_exist_are_refused():
    backbone = tiny("r50")
    with pytest.raises(BackboneError, match="entries 0 to 3, not 4"):
        backbone.entry(4)
    with pytest.raises(BackboneError, match="no module 'layer9'; at the top it has conv1"):
        backbone.entry("layer9")
    with pytest.raises(BackboneError, match="does not run it"):
        backbone.entry("global_pool")
    with pytest.raises(BackboneError, match="not -1"):
        backbone.entry(-1)


class Masked(nn.Module):
    """What a method does: a token, and a mask that changes from step to step."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        entry = backbone.entry(1)
        self.token = nn.Parameter(torch.randn(1, entry.channels, 1, 1))
        self.mask: torch.Tensor | None = None
        entry.attach(self.insert)

    def insert(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.mask is None else x * (1 - self.mask) + self.token * self.mask

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.mask = mask
        return self.backbone(x)


def test_a_deep_copy_inserts_its_own_token():
    model = Masked(tiny("vit_b")).eval()
    twin = copy.deepcopy(model)
    mask = torch.ones(2, 1, 4, 4)
    with torch.no_grad():
        before = model(images(), mask)
        twin.token.add_(1.0)
        assert torch.equal(model(images(), mask), before)
        assert not torch.equal(twin(images(), mask), before)


@pytest.mark.parametrize("name", ["r50", "vit_b"])
def test_compiled_models_use_the_mask_of_each_step(name):
    torch.manual_seed(0)
    model = Masked(tiny(name)).eval()
    grid = 64 // model.backbone.entry(1).stride
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for seed in range(2):
            mask = (torch.rand(2, 1, grid, grid, generator=torch.Generator().manual_seed(seed)) > 0.5).float()
            assert torch.allclose(compiled(images(), mask), model(images(), mask), atol=1e-5)


def test_finding_an_entry_does_not_call_what_is_already_inserted():
    backbone = tiny("r50")
    calls = []
    backbone.entry(2).attach(lambda x: calls.append(1) or x)
    backbone.entry(3)
    assert not calls


def test_finding_shapes_changes_neither_statistics_nor_modes_nor_random_numbers():
    net = build_backbone("r50", image_size=64, **TINY["r50"]).net
    net.layer1.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    backbone = Backbone(net)
    backbone.entry(3)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training and net.layer2.training and not net.layer1.training


# --- what stays in


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_used_by_forward(name):
    backbone = small(name)
    backbone(images()).square().sum().backward()
    assert [n for n, weight in backbone.named_parameters() if weight.requires_grad and weight.grad is None] == []


@pytest.mark.parametrize("name", ["r50", "vit_b", "convnext_t", "swin_t", "efficientnet_b0"])
def test_after_freezing_every_trained_parameter_is_used_by_features(name):
    backbone = small(name)
    frozen = backbone.freeze_unused_by_features()
    sum(m.square().sum() for m in backbone.features(images())).backward()
    unused = [n for n, weight in backbone.named_parameters() if weight.requires_grad and weight.grad is None]
    assert unused == []
    norms = {"vit_b": ["norm.weight", "norm.bias"], "convnext_t": ["head.norm.weight", "head.norm.bias"], "r50": []}
    assert frozen == norms.get(name, frozen)


def test_classifier_and_unused_layers_are_removed_and_remembered():
    backbone = Backbone(timm.create_model("mobilenetv3_small_100"))
    assert backbone.removed == {"conv_head.weight", "conv_head.bias", "classifier.weight", "classifier.bias"}
    assert not backbone.removed & set(backbone.net.state_dict())


def test_distributed_data_parallel_finds_no_unused_parameter(tmp_path):
    """Without find_unused_parameters, DDP raises in the second step if the first left a parameter without gradient."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for name in ("vit_b", "convnext_t", "mobilenetv3_small_100"):
            model = nn.parallel.DistributedDataParallel(small(name))
            for _ in range(2):
                model(images()).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()


# --- building


def test_a_network_made_with_timms_classes_can_be_given():
    resnet = Backbone(ResNet(Bottleneck, (1, 1, 1, 1), channels=(4, 8, 16, 32), num_classes=7))
    assert resnet.channels == (16, 32, 64, 128)
    vit = Backbone(Beit(img_size=32, embed_dim=16, depth=2, num_heads=2, use_rel_pos_bias=True, use_fc_norm=False))
    assert (vit.image_size, vit.name, vit.channels) == (32, "Beit", (16, 16))
    convnext = Backbone(ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)))
    assert convnext.entry(3).channels == 32


def test_stochastic_depth_grows_linearly_to_the_last_block():
    backbone = build_backbone("vit_b", image_size=64, drop_path=0.2, **TINY["vit_b"])
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in backbone.net.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_stochastic_depth_is_off_unless_asked_for():
    """timm's Swin drops paths by default; the published pre-training does not."""
    backbone = tiny("swin_t")
    assert not any(type(module).__name__ == "DropPath" for module in backbone.modules())


def test_a_network_without_stochastic_depth_takes_rate_zero_only():
    assert build_backbone("dla46_c", image_size=64).channels == (64, 64, 128, 256)
    with pytest.raises(BackboneError, match="drop_path_rate"):
        build_backbone("dla46_c", image_size=64, drop_path=0.1)


def test_an_option_timm_does_not_have_is_refused():
    with pytest.raises(BackboneError, match="depht"):
        build_backbone("r50", depht=50)


def test_an_image_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(BackboneError, match="200 is not a multiple of its 16 px patches"):
        build_backbone("vit_b", image_size=200, **TINY["vit_b"])


def test_a_vit_refuses_images_of_another_size():
    with pytest.raises(AssertionError, match="height"):
        tiny("vit_b")(images(96))


@pytest.mark.parametrize("name", TINY)
def test_encoder_and_classifier_agree_on_every_name_but_the_heads(name):
    encoder = tiny(name).net.state_dict()
    classifier = build_classifier(name, 10, image_size=64, **TINY[name]).state_dict()
    head = {
        "r50": {"fc.weight", "fc.bias"},
        "convnext_t": {"head.fc.weight", "head.fc.bias"},
        "swin_t": {"head.fc.weight", "head.fc.bias"},
        "deit_s": {"head.weight", "head.bias"},
        "vit_b": {"head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias"},
    }[name]
    assert classifier.keys() - encoder.keys() == head
    assert encoder.keys() - classifier.keys() == ({"norm.weight", "norm.bias"} if name == "vit_b" else set())


def test_the_published_vits_classify_the_normalised_mean_of_the_patch_tokens():
    net = build_classifier("vit_b", 3, image_size=64, **TINY["vit_b"]).eval()
    with torch.no_grad():
        tokens = net.forward_features(images())
        assert torch.allclose(net(images()), net.head(net.fc_norm(tokens[:, 1:].mean(1))))


def test_deit_s_classifies_its_class_token():
    net = build_classifier("deit_s", 3, image_size=64, **TINY["deit_s"]).eval()
    with torch.no_grad():
        assert torch.allclose(net(images()), net.head(net.forward_features(images())[:, 0]))


def test_drop_rate_is_the_dropout_before_the_classifier():
    net = build_classifier("vit_b", 3, image_size=64, drop_rate=0.5, **TINY["vit_b"])
    assert net.head_drop.p == 0.5
