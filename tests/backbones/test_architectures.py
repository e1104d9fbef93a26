import pytest
import torch

from backbones import PUBLISHED, BackboneError, build_classifier, find_architecture
from tests.backbones.networks import full_size

# name: (millions of parameters as printed, with classifier for 1000 classes, where they are printed)
PRINTED = {
    "r50": ("25.56", "OpenMixup supervised model zoo"),
    "r101": ("44.55", "OpenMixup supervised model zoo"),
    "r152": ("60.19", "OpenMixup supervised model zoo"),
    "r200": ("64.7", "A2MIM README summary table"),
    "convnext_t": ("28.59", "OpenMixup ConvNeXt README"),
    "convnext_s": ("50.22", "OpenMixup ConvNeXt README"),
    "convnext_b": ("88.59", "OpenMixup ConvNeXt README"),
    "vit_s": ("48.8", "A2MIM README summary table"),
    "vit_b": ("86.7", "A2MIM README summary table"),
    "vit_l": ("304.6", "A2MIM README summary table"),
    "deit_s": ("22.05", "A2MIM configs README, ImageNet-100 table"),
    "swin_t": ("28.29", "OpenMixup supervised model zoo"),
    "swin_b": ("87.77", "OpenMixup supervised model zoo"),
}

# Where the network that was trained is not the one whose count is printed: name -> (cause, exact number of parameters
# by which ours differs from the network that is printed, and that network's exact count).
KNOWN_DIFFERENCES = {
    "deit_s": (
        "12 bias tables of 732 x 6 and 24 layer scales of 384 added, 12 key biases of 384 removed",
        12 * 732 * 6 + 24 * 384 - 12 * 384,
        22_050_664,
    ),
}


@pytest.fixture(scope="module")
def counts() -> dict[str, int]:
    with torch.device("meta"):
        nets = {name: build_classifier(name, 1000) for name in PUBLISHED}
    return {name: sum(weight.numel() for weight in net.parameters()) for name, net in nets.items()}


def test_every_published_name_has_a_printed_parameter_count():
    assert set(PRINTED) == set(PUBLISHED)


@pytest.mark.parametrize("name", [name for name in PRINTED if name not in KNOWN_DIFFERENCES])
def test_the_parameter_count_is_the_printed_one_to_its_last_digit(name, counts):
    printed = PRINTED[name][0]
    assert f"{counts[name] / 1e6:.{len(printed.partition('.')[2])}f}" == printed


@pytest.mark.parametrize("name", KNOWN_DIFFERENCES)
def test_a_known_difference_from_the_printed_count_has_exactly_its_named_cause(name, counts):
    _, difference, printed_network = KNOWN_DIFFERENCES[name]
    assert f"{printed_network / 1e6:.2f}" == PRINTED[name][0]
    assert counts[name] - printed_network == difference


def test_no_other_count_differs_by_more_than_a_fifth_of_a_million(counts):
    for name, (printed, _) in PRINTED.items():
        assert abs(counts[name] / 1e6 - float(printed)) <= 0.2, name


def test_vit_s_is_eight_wide_blocks():
    net = full_size("vit_s").net
    assert len(net.blocks) == 8
    assert net.blocks[0].attn.num_heads == 8
    assert net.blocks[0].mlp.fc1.weight.shape == (2304, 768)
    assert net.blocks[0].attn.relative_position_bias_table.shape == (732, 8)
    assert net.pos_embed.shape == (1, 197, 768)
    assert net.norm.eps == net.blocks[0].norm1.eps == 1e-6


@pytest.mark.parametrize("name", ["vit_s", "vit_b", "vit_l", "deit_s"])
def test_vits_have_query_and_value_biases_and_no_key_bias(name):
    names = full_size(name).net.state_dict().keys()
    assert {"blocks.0.attn.q_bias", "blocks.0.attn.v_bias"} <= names
    assert not {"blocks.0.attn.k_bias", "blocks.0.attn.qkv.bias"} & names


def test_r200_has_the_plain_stem_and_the_published_depths():
    net = full_size("r200").net
    assert [len(getattr(net, f"layer{i}")) for i in (1, 2, 3, 4)] == [3, 24, 36, 3]
    assert net.conv1.weight.shape == (64, 3, 7, 7)


def test_resnets_stride_on_the_three_by_three_convolution():
    block = full_size("r50").net.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


@pytest.mark.parametrize(("image_size", "window"), [(224, 7), (192, 6)])
@pytest.mark.parametrize("name", ["swin_t", "swin_b"])
def test_swin_windows_follow_the_image_size(name, image_size, window):
    net = full_size(name, image_size).net
    for stage in net.layers:
        assert stage.blocks[0].attn.window_size == (window, window)


def test_an_unknown_name_is_refused_with_the_nearest_ones():
    with pytest.raises(BackboneError, match=r"no model is called 'resnet5'.*resnet50") as caught:
        find_architecture("resnet5")
    assert caught.value.exit_code == 2
    with pytest.raises(BackboneError, match="nearest: vit_s"):
        find_architecture("vit_small")


def test_a_name_that_would_be_downloaded_is_refused():
    with pytest.raises(BackboneError, match="no model is called"):
        find_architecture("hf-hub:somebody/something")


def test_a_timm_name_with_a_tag_is_the_same_network_untrained():
    assert find_architecture("resnet18.a1_in1k").timm_name == "resnet18"
