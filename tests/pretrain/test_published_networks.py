"""Whole training steps of five small networks against the published implementation: every number on the way."""

import pytest
import torch

from tests.pretrain.published_networks import METHODS, Case, our_name


@pytest.fixture(scope="module", params=sorted(METHODS))
def step(request, device):
    """A forward and backward pass of one case, with the features around the token and the latent recorded."""
    case = Case(request.param)
    model = case.model().to(device)
    seen = {}
    model.token.register_forward_hook(lambda _, inputs, output: seen.update(feat_before=inputs[0], feat_after=output))
    model.encoder.register_forward_hook(lambda _, inputs, output: seen.update(latent=output, input=inputs[0]))
    model.decoder.register_forward_hook(lambda _, inputs, output: seen.update(rec=output))
    terms = model(case.images_bchw.to(device), case.mask_bgg.to(device))
    sum(terms.values()).backward()
    return case, model, terms, seen


def assert_close(found, expected, tolerance, what):
    difference = (found.detach().cpu() - expected).abs().max() / expected.abs().max()
    assert difference <= tolerance, f"{what}: {difference:.2e} of the largest entry"


def test_losses_equal_the_published_ones(step):
    case, _, terms, _ = step
    expected = [case.numbers["spatial"], case.numbers.get("freq_weighted")][: len(terms)]
    for term, value in zip(terms.values(), expected, strict=True):
        assert term.item() == pytest.approx(value, rel=1e-5)
    assert sum(terms.values()).item() == pytest.approx(case.numbers["total"], rel=1e-5)


def test_activations_equal_the_published_ones(step):
    case, _, _, seen = step
    for name in ("feat_before", "feat_after", "latent", "rec"):
        expected = case.tensors[name]
        if expected.ndim == 3:  # the reference keeps ViT features as tokens
            expected = expected.transpose(1, 2).unflatten(2, (14, 14))
        every = seen[name].shape[-1] // expected.shape[-1]  # large maps are stored in part
        part = seen[name][: expected.shape[0], : expected.shape[1], ::every, ::every]
        assert_close(part, expected, 1e-4, name)


def test_gradients_equal_the_published_ones(step):
    case, model, _, _ = step
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    stored = {our_name(name[5:]): value for name, value in case.tensors.items() if name.startswith("grad/")}
    for name, expected in stored.items():
        assert_close(gradients[name], expected.reshape(gradients[name].shape), 1e-3, name)
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert norm.item() == pytest.approx(case.numbers["grad_norm"]["all"], rel=1e-3)
    assert len(stored) in (1, 2, len(gradients))


def test_running_statistics_equal_the_published_ones(step):
    case, model, _, _ = step
    state = model.state_dict()
    stored = {our_name(name[6:]): value for name, value in case.tensors.items() if name.startswith("after/")}
    assert bool(stored) == (case.mode == "train")
    for name, expected in stored.items():
        if "num_batches" not in name:
            assert_close(state[name], expected, 1e-4, name)


@pytest.mark.parametrize("name", ["tiny_a2mim_vit_l0", "tiny_a2mim_convnext_l3_init_fft"])
def test_a_model_in_float64_reproduces_the_published_float64_numbers(name, device):
    case = Case(name)
    terms = case.model().double().to(device)(case.images_bchw.to(device), case.mask_bgg.to(device))
    assert {value.dtype for value in terms.values()} == {torch.float64}
    assert sum(terms.values()).item() == pytest.approx(case.numbers64["total"], rel=1e-6)
