"""ImageNet-C, A, R, Sketch, V2 and ReaL on tiny folders in their authors' layouts, each by its masking rule."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from backbones import BackboneError, WeightsError
from engine.errors import ConfigError, DataError, DivergedError
from evaluation.robustness.classifier import open_classifier
from evaluation.robustness.corruption import corruption_error, mce_interval
from evaluation.robustness.facts import (
    ALEXNET_ERRORS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    imagenet_classes,
    real_labels,
    subset_classes,
)
from evaluation.robustness.folders import Folders, find_folders
from evaluation.robustness.measure import bootstrap_interval
from evaluation.robustness.sets import Reading, measure_sets
from tests.evaluation.robustness_folders import SIZE, make_classifier, make_sets, picture
from tests.helpers import ROOT

READING = Reading(batch_size=4, num_workers=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def ours(run):
    return open_classifier(str(run))


@pytest.fixture(scope="module")
def measured(ours, root):
    return measure_sets(ours, find_folders(Folders(root=str(root))), READING)


def scores(classifier, path, *, crop=True):
    """By hand: the scores of one picture, keyed by wnid."""
    image = Image.open(path)
    if crop:
        image = transforms.Resize(round(SIZE / 0.875), interpolation=transforms.InterpolationMode.BICUBIC)(image)
        image = transforms.CenterCrop(SIZE)(image)
    pixels = transforms.ToTensor()(image)
    pixels = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(pixels)
    with torch.no_grad():
        logits = classifier.network(pixels[None])[0]
    return dict(zip(imagenet_classes(), logits.tolist(), strict=True))


def best(values, among=None):
    return max(among or values, key=values.get)


def percent(right):
    assert 0 < np.mean(right) < 1  # a rule that does nothing would not be seen
    return pytest.approx(100 * np.mean(right))


def test_the_facts_are_the_published_ones():
    golden = json.loads((ROOT / "tests/data/golden/protocols/mce.json").read_text())
    assert {name: list(ALEXNET_ERRORS[name]) for name in CORRUPTIONS} == {
        name: errors for name, errors in golden["alexnet"].items() if name not in EXTRA_CORRUPTIONS
    }
    assert len(imagenet_classes()) == 1000
    for name in ("a", "r"):
        assert len(set(subset_classes(name)) & set(imagenet_classes())) == 200
    assert len(set(subset_classes("a")) & set(subset_classes("r"))) < 200
    answers = real_labels().answers
    assert len(answers) == 50_000
    assert sum(map(bool, answers)) == 46_837


def test_mce_equals_the_reference_and_does_not_count_the_extra_corruptions():
    golden = json.loads((ROOT / "tests/data/golden/protocols/mce.json").read_text())
    for case in golden["cases"]:
        found = corruption_error(case["errors"])
        assert found.mce == pytest.approx(case["mCE"], rel=1e-10)
        assert found.ce == pytest.approx(case["ce_percent"], rel=1e-10)
        assert found.mean_error == pytest.approx(case["unnormalised_mean_error_percent"], rel=1e-10)
    errors = golden["cases"][0]["errors"]
    assert corruption_error({**errors, "saturate": [1.0] * 5}).mce == pytest.approx(golden["cases"][0]["mCE"])
    assert corruption_error({name: errors[name] for name in CORRUPTIONS[:14]}).mce is None
    assert corruption_error(ALEXNET_ERRORS).mce == pytest.approx(100)


def test_masked_sets_take_the_best_of_their_200_classes(ours, root, measured):
    for name, folder in (("a", "imagenet-a"), ("r", "imagenet-r")):
        paths = sorted((root / folder).glob("*/*.jpg"))
        masked = [best(scores(ours, path), subset_classes(name)) == path.parent.name for path in paths]
        assert measured[name].value == percent(masked)
        assert (measured[name].num_images, measured[name].rule) == (
            24,
            f"best of the 200 classes of ImageNet-{name.upper()}",
        )


def test_v2_goes_by_number_and_sketch_by_wnid_over_all_classes(ours, root, measured):
    v2 = sorted((root / "imagenetv2-matched-frequency-format-val").glob("*/*.jpeg"))
    right = [best(scores(ours, path)) == imagenet_classes()[int(path.parent.name)] for path in v2]
    assert measured["v2"].value == percent(right)
    sketch = sorted((root / "sketch").glob("*/*.JPEG"))
    assert measured["sketch"].value == percent([best(scores(ours, path)) == path.parent.name for path in sketch])


def test_real_drops_images_without_a_label_and_clean_partners_are_masked(ours, root, measured):
    paths = sorted((root / "val").glob("*/*.JPEG"), key=lambda path: path.name)
    answers = json.loads((root / "real.json").read_text())
    right = [
        imagenet_classes().index(best(scores(ours, path))) in labels
        for path, labels in zip(paths, answers, strict=True)
        if labels
    ]
    assert (measured["real"].value, measured["real"].num_images) == (percent(right), 47)
    assert measured["real"].more["left_out"] == 1
    for name in ("a", "r"):
        inside = [path for path in paths if path.parent.name in subset_classes(name)]
        clean = [best(scores(ours, path), subset_classes(name)) == path.parent.name for path in inside]
        assert (measured[f"{name}_clean"].value, measured[f"{name}_clean"].num_images) == (percent(clean), len(clean))


def test_imagenet_c_takes_its_pictures_as_they_are(ours, root, measured):
    errors = {}
    for corruption in CORRUPTIONS:
        for severity in range(1, 6):
            paths = sorted((root / "ImageNet-C" / corruption / str(severity)).glob("*/*.JPEG"))
            wrong = [best(scores(ours, path, crop=False)) != path.parent.name for path in paths]
            errors.setdefault(corruption, []).append(np.mean(wrong))
    found = measured["c"]
    assert found.value == pytest.approx(corruption_error(errors).mce)
    assert found.more["ce"] == pytest.approx(corruption_error(errors).ce)
    assert found.more["mean_error"] == percent([errors[name] for name in CORRUPTIONS])
    assert found.low < found.value < found.high
    assert found.num_images == 2


def test_the_interval_is_that_of_resampled_images():
    low, high = bootstrap_interval(30, 40)
    source = np.random.default_rng(0)
    images = np.arange(40) < 30
    means = [100 * images[source.integers(0, 40, 40)].mean() for _ in range(5000)]
    assert [low, high] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist(), abs=2.6)  # one image is 2.5
    wrong = {name: np.tile(np.arange(50) < 25, (5, 1)) for name in CORRUPTIONS}
    low, high = mce_interval(wrong, resamples=1000, seed=0)
    mce = corruption_error({name: [0.5] * 5 for name in CORRUPTIONS}).mce
    # The same images are wrong everywhere: the interval is as wide as for one corruption, not a 75th of it.
    assert [low, high] == pytest.approx([mce * share / 50 for share in bootstrap_interval(25, 50)], rel=0.05)


@pytest.mark.parametrize("part", ["classifier.safetensors", "timm", "timm/model.safetensors"])
def test_a_classifier_comes_from_its_file_or_as_timm_has_it(run, ours, root, part):
    found = open_classifier(str(run / part))
    path = next((root / "imagenet-a").glob("*/*.jpg"))
    image = torch.stack([ours.transform(Image.open(path))])
    assert found.classes == ours.classes
    assert found.test_size == SIZE
    with torch.no_grad():
        assert torch.equal(found.network(found.normalise(image)), ours.network(ours.normalise(image)))


def test_a_folder_of_timm_without_names_is_taken_in_imagenets_order(run, tmp_path):
    shutil.copytree(run / "timm", tmp_path / "hub")
    stored = json.loads((tmp_path / "hub/config.json").read_text())
    del stored["label_names"]
    stored["pretrained_cfg"] |= {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}
    (tmp_path / "hub/config.json").write_text(json.dumps(stored))
    found = open_classifier(str(tmp_path / "hub"))
    assert found.classes == imagenet_classes()
    assert found.preprocessing["crop_pct"] == 0.9
    assert found.normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).tolist() == [[[[1.0] * 2] * 2] * 3]


def test_what_is_no_classifier_is_refused(run, tmp_path):
    for source in (str(tmp_path), str(tmp_path / "absent"), "timm:no_such_model"):
        with pytest.raises((BackboneError, ConfigError)):
            open_classifier(source)
    shutil.copytree(run / "timm", tmp_path / "wrong")
    stored = json.loads((tmp_path / "wrong/config.json").read_text())
    (tmp_path / "wrong/config.json").write_text(json.dumps({**stored, "architecture": "resnet18"}))
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        open_classifier(str(tmp_path / "wrong"))


def test_a_set_that_is_not_whole_is_refused(ours, root, tmp_path):
    shutil.copytree(root / "ImageNet-C", tmp_path / "c")
    shutil.rmtree(tmp_path / "c/fog/3")
    with pytest.raises(DataError, match="fog: its folders are 1, 2, 4, 5, not the severities 1 to 5"):
        measure_sets(ours, find_folders(Folders(c=str(tmp_path / "c"))), READING)
    shutil.copytree(root / "ImageNet-C/fog/2", tmp_path / "c/fog/3")
    next((tmp_path / "c/fog/3").glob("*/*.JPEG")).unlink()
    with pytest.raises(DataError, match=r"severities 1 and 3 differ in 1 images|class folders without images"):
        measure_sets(ours, find_folders(Folders(c=str(tmp_path / "c"))), READING)


def test_one_archive_of_imagenet_c_has_errors_and_no_mce(ours, root, tmp_path, caplog):
    for folder in ("weather/snow", "weather/fog", "extra/saturate"):
        shutil.copytree(root / "ImageNet-C" / ("fog" if "extra" in folder else folder[8:]), tmp_path / folder)
    found = measure_sets(ours, find_folders(Folders(root=str(tmp_path))), READING)["c"]
    assert (found.value, set(found.more["ce"]), set(found.more["extra_mean_error"])) == (
        None,
        {"snow", "fog"},
        {"saturate"},
    )
    assert "no mCE: 13 of the 15 corruptions are not there" in caplog.text


def test_fewer_classes_are_masked_and_said_and_other_classes_refused(root, tmp_path, caplog):
    few = make_classifier(tmp_path / "few", [*subset_classes("a")[::90], "n00000001"])
    found = measure_sets(open_classifier(str(few)), find_folders(Folders(a=str(root / "imagenet-a"))), READING)
    assert found["a"].rule == "best of the 3 classes of ImageNet-A"
    assert "has 3 of its 200 classes: not to be compared" in caplog.text
    with pytest.raises(DataError, match="3 of its 3 classes are not among the 4 of"):
        measure_sets(open_classifier(str(few)), find_folders(Folders(r=str(root / "imagenet-r"))), READING)


def test_scores_that_are_not_finite_are_no_predictions(ours, root):
    with torch.no_grad():
        before = ours.network.get_classifier().bias[0].item()
        ours.network.get_classifier().bias[0] = float("nan")
        try:
            with pytest.raises(DivergedError, match=r"scores are not finite, for .*n\d+/0.jpg first"):
                measure_sets(ours, find_folders(Folders(a=str(root / "imagenet-a"))), READING)
        finally:
            ours.network.get_classifier().bias[0] = before


def test_sets_are_found_by_name_or_given(root, tmp_path):
    assert set(find_folders(Folders(root=str(root)))) == {"imagenet", "real", "a", "r", "sketch", "v2", "c"}
    assert find_folders(Folders(root=str(root / "imagenet-a"))) == {"a": root / "imagenet-a"}
    (tmp_path / "mine").symlink_to(root / "sketch")
    assert find_folders(Folders(a=str(tmp_path / "mine"))) == {"a": tmp_path / "mine"}
    for name in ("one", "two"):
        (tmp_path / name / "imagenet-a" / "n01498041").mkdir(parents=True)
    with pytest.raises(DataError, match=r"twice.*say which by --data\.a DIR"):
        find_folders(Folders(root=str(tmp_path)))
    with pytest.raises(DataError, match="none of the sets is here"):
        find_folders(Folders(root=str(tmp_path / "one" / "imagenet-a" / "n01498041")))


@pytest.mark.parametrize("content", ["", "{}", "[]", "[[1], 2]", "[[1000]]", "[[true]]", "[" * 100_000])
def test_a_file_that_is_not_reals_is_refused(content, tmp_path):
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(DataError, match=r"real.json: (no JSON|ReaL's file is a list)"):
        real_labels(tmp_path / "real.json")


def test_an_image_without_a_number_has_no_real_label(ours, root, tmp_path):
    picture(tmp_path / "val" / subset_classes("a")[0] / "photo.jpg", 0)
    folders = find_folders(Folders(imagenet=str(tmp_path / "val"), real=str(root / "real.json")))
    with pytest.raises(DataError, match=r"photo\.jpg: ReaL's labels are found by the number"):
        measure_sets(ours, folders, READING)
