"""ImageNet-C, A, R, Sketch, V2 and ReaL on tiny folders in their authors' layouts, each by its masking rule."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from backbones import BackboneError, WeightsError
from engine.errors import ConfigError, DataError, DivergedError
from evaluation.command import parse
from evaluation.intervals import accuracy_interval, mean_interval
from evaluation.measured import ROW_FIELDS
from evaluation.robustness.classifier import load
from evaluation.robustness.config import RobustnessConfig, SetsConfig
from evaluation.robustness.corruption import corruption_error, of_each_image
from evaluation.robustness.facts import (
    ALEXNET_ERRORS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    imagenet_classes,
    real_labels,
    subset_classes,
)
from evaluation.robustness.folders import find_folders
from evaluation.robustness.measure import Predictor
from evaluation.robustness.sets import measure_sets, open_sets
from evaluation.run import evaluate_all
from results.runs.collect import collect
from tests.evaluation.robustness_folders import SIZE, make_classifier, make_sets, picture
from tests.helpers import ROOT


def measure(classifier, where, **folders):
    """Every set below a folder, or those that are given; predictions are kept in `where`."""
    config = RobustnessConfig(batch_size=4, data=SetsConfig(num_workers=0, **folders))
    return measure_sets(Predictor(classifier, config, where), open_sets(config))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def ours(run):
    return load(str(run))


@pytest.fixture(scope="module")
def measured(ours, root, tmp_path_factory):
    return measure(ours, tmp_path_factory.mktemp("measured"), root=str(root))


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
        assert (len(measured[name].per_image), measured[name].rule) == (
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
    assert (measured["real"].value, len(measured["real"].per_image)) == (percent(right), 47)
    assert measured["real"].more["left_out"] == 1
    for name in ("a", "r"):
        inside = [path for path in paths if path.parent.name in subset_classes(name)]
        clean = [best(scores(ours, path), subset_classes(name)) == path.parent.name for path in inside]
        assert (measured[f"{name}_clean"].value, len(measured[f"{name}_clean"].per_image)) == (
            percent(clean),
            len(clean),
        )


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
    assert found.value == pytest.approx(100 * found.per_image.mean())
    assert len(found.per_image) == 2


def test_an_image_is_resampled_in_all_its_corruptions_at_once():
    wrong = {name: np.tile(np.arange(50) < 25, (5, 1)) for name in CORRUPTIONS}
    mce = corruption_error({name: [0.5] * 5 for name in CORRUPTIONS}).mce
    of_each = of_each_image(wrong)
    assert 100 * of_each.mean() == pytest.approx(mce)
    low, high = mean_interval(100 * of_each, seed=0, resamplings=2000)
    # The same images are wrong everywhere: the interval is as wide as for one corruption, not a 75th of it.
    one = accuracy_interval(np.arange(50) < 25, seed=0, resamplings=2000)
    assert [low, high] == pytest.approx([mce * share / 50 for share in one], rel=0.08)


@pytest.mark.parametrize("part", ["classifier.safetensors", "timm", "timm/model.safetensors"])
def test_a_classifier_comes_from_its_file_or_as_timm_has_it(run, ours, root, part):
    found = load(str(run / part))
    path = next((root / "imagenet-a").glob("*/*.jpg"))
    image = torch.stack([ours.transform(Image.open(path))])
    assert found.classes == ours.classes
    assert found.image_size == SIZE
    with torch.no_grad():
        assert torch.equal(found.network(found.normalise(image)), ours.network(ours.normalise(image)))


def test_a_folder_of_timm_without_names_is_taken_in_imagenets_order(run, tmp_path):
    shutil.copytree(run / "timm", tmp_path / "hub")
    stored = json.loads((tmp_path / "hub/config.json").read_text())
    del stored["label_names"]
    stored["pretrained_cfg"] |= {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}
    (tmp_path / "hub/config.json").write_text(json.dumps(stored))
    found = load(str(tmp_path / "hub"))
    assert found.classes == imagenet_classes()
    assert found.preprocessing["crop_pct"] == 0.9
    assert found.normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).tolist() == [[[[1.0] * 2] * 2] * 3]


def test_what_is_no_classifier_is_refused(run, tmp_path):
    for source in (str(tmp_path), str(tmp_path / "absent"), "timm:no_such_model", "random:test_resnet"):
        with pytest.raises((BackboneError, ConfigError)):
            load(source)
    shutil.copytree(run / "timm", tmp_path / "wrong")
    stored = json.loads((tmp_path / "wrong/config.json").read_text())
    (tmp_path / "wrong/config.json").write_text(json.dumps({**stored, "architecture": "resnet18"}))
    with pytest.raises(WeightsError, match="does not fit resnet18"):
        load(str(tmp_path / "wrong"))


def test_a_set_that_is_not_whole_is_refused(ours, root, tmp_path):
    shutil.copytree(root / "ImageNet-C", tmp_path / "c")
    shutil.rmtree(tmp_path / "c/fog/3")
    with pytest.raises(DataError, match="fog: its folders are 1, 2, 4, 5, not the severities 1 to 5"):
        measure(ours, tmp_path, c=str(tmp_path / "c"))
    shutil.copytree(root / "ImageNet-C/fog/2", tmp_path / "c/fog/3")
    next((tmp_path / "c/fog/3").glob("*/*.JPEG")).unlink()
    with pytest.raises(DataError, match=r"severities 1 and 3 differ in 1 images|class folders without images"):
        measure(ours, tmp_path, c=str(tmp_path / "c"))


def test_one_archive_of_imagenet_c_has_errors_and_no_mce(ours, root, tmp_path, caplog):
    for folder in ("weather/snow", "weather/fog", "extra/saturate"):
        shutil.copytree(root / "ImageNet-C" / ("fog" if "extra" in folder else folder[8:]), tmp_path / folder)
    found = measure(ours, tmp_path, root=str(tmp_path))["c"]
    assert (found.value, set(found.more["ce"]), set(found.more["not_counted"])) == (
        None,
        {"snow", "fog"},
        {"saturate"},
    )
    assert "no mCE: 13 of the 15 corruptions are not there" in caplog.text


def test_fewer_classes_are_masked_and_said_and_other_classes_refused(root, tmp_path, caplog):
    few = make_classifier(tmp_path / "few", [*subset_classes("a")[::90], "n00000001"])
    found = measure(load(str(few)), tmp_path, a=str(root / "imagenet-a"))
    assert found["a"].rule == "best of the 3 classes of ImageNet-A"
    assert "has 3 of its 200 classes: not to be compared" in caplog.text
    with pytest.raises(DataError, match="3 of its 3 classes are not among the 4 of"):
        measure(load(str(few)), tmp_path, r=str(root / "imagenet-r"))


def test_scores_that_are_not_finite_are_no_predictions(ours, root, tmp_path):
    with torch.no_grad():
        before = ours.network.get_classifier().bias[0].item()
        ours.network.get_classifier().bias[0] = float("nan")
        try:
            with pytest.raises(DivergedError, match=r"scores are not finite, for .*n\d+/0.jpg first"):
                measure(ours, tmp_path, a=str(root / "imagenet-a"))
        finally:
            ours.network.get_classifier().bias[0] = before


def test_sets_are_found_by_name_or_given(root, tmp_path):
    assert set(find_folders(SetsConfig(root=str(root)))) == {"imagenet", "real", "a", "r", "sketch", "v2", "c"}
    assert find_folders(SetsConfig(root=str(root / "imagenet-a"))) == {"a": root / "imagenet-a"}
    (tmp_path / "mine").symlink_to(root / "sketch")
    assert find_folders(SetsConfig(a=str(tmp_path / "mine"))) == {"a": tmp_path / "mine"}
    for name in ("one", "two"):
        (tmp_path / name / "imagenet-a" / "n01498041").mkdir(parents=True)
    with pytest.raises(DataError, match=r"twice.*say which by --data\.a DIR"):
        find_folders(SetsConfig(root=str(tmp_path)))
    picture(tmp_path / "flat" / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(DataError, match="1 images are in no class folder"):
        open_sets(RobustnessConfig(data=SetsConfig(root=str(tmp_path / "flat"))))
    with pytest.raises(DataError, match="no such folder"):
        find_folders(SetsConfig(root=str(tmp_path / "absent")))
    with pytest.raises(DataError, match="none of the sets is here"):
        find_folders(SetsConfig(root=str(tmp_path / "one" / "imagenet-a" / "n01498041")))


@pytest.mark.parametrize("content", ["", "{}", "[]", "[[1], 2]", "[[1000]]", "[[true]]", "[" * 100_000])
def test_a_file_that_is_not_reals_is_refused(content, tmp_path):
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(DataError, match=r"real.json: (no JSON|ReaL's file is a list)"):
        real_labels(tmp_path / "real.json")


def test_an_image_without_a_number_has_no_real_label(ours, root, tmp_path):
    picture(tmp_path / "val" / subset_classes("a")[0] / "photo.jpg", 0)
    with pytest.raises(DataError, match=r"photo\.jpg: ReaL's labels are found by the number"):
        measure(ours, tmp_path, imagenet=str(tmp_path / "val"), real=str(root / "real.json"))


def test_the_command_leaves_a_run_of_each_classifier_and_one_table_and_predicts_nothing_twice(
    run, root, measured, tmp_path, monkeypatch
):
    def ask(*more):
        folders = ["--data.root", str(root), "--data.num-workers", "0", "--runs-dir", str(tmp_path / "runs")]
        return parse(["robustness", str(run), str(run / "timm"), *folders, "--batch-size", "4", *more])

    text = evaluate_all(ask())
    rows = list(csv.DictReader((tmp_path / "runs" / "robustness.csv").open()))
    assert [row["reference"] for row in rows] == [str(run), str(run / "timm")]
    for row in rows:
        assert set(ROW_FIELDS) <= row.keys()
        assert (row["resolution"], row["crop_pct"], row["interpolation"]) == (str(SIZE), "0.875", "bicubic")
    for name in ("imagenet", "real", "a", "a_clean", "r", "r_clean", "sketch", "v2"):
        metric = "top1" if name == "imagenet" else f"top1_{name}"
        assert float(rows[0][metric]) == measured[name].value
        assert float(rows[0][f"{metric}_low"]) <= measured[name].value <= float(rows[0][f"{metric}_high"])
    assert float(rows[0]["mCE"]) == measured["c"].value
    assert float(rows[0]["mean_corruption_error"]) == measured["c"].more["mean_error"]
    folder = next((tmp_path / "runs").glob("robustness-run*"))
    finished = json.loads((folder / "finished.json").read_text())
    assert finished["sets"]["a"]["rule"] == "best of the 200 classes of ImageNet-A"
    assert finished["sets"]["real"]["labels_sha256"]
    assert not collect([tmp_path / "runs"])[1]
    (folder / "finished.json").unlink()  # as if killed there: the sets that are predicted stay so
    (folder / "predictions" / "c-snow.npz").write_bytes(b"torn")
    monkeypatch.setattr(Predictor, "_predict", counting(Predictor._predict, predicted := []))
    assert without_seconds(evaluate_all(ask())) == without_seconds(text)
    assert predicted == ["c-snow"]


def without_seconds(table):
    return [line.rpartition("|")[0].rpartition("|")[0] for line in table.splitlines()]


def counting(predict, names):
    def counted(self, name, *arguments):
        names.append(name)
        return predict(self, name, *arguments)

    return counted


@pytest.mark.parametrize(("option", "value"), [("--crop-pct", "0.9"), ("--interpolation", "bilinear")])
def test_the_preprocessing_is_the_classifiers_own(run, root, tmp_path, option, value):
    arguments = ["robustness", str(run), "--data.root", str(root), "--runs-dir", str(tmp_path)]
    with pytest.raises(ConfigError, match="is tested with what stands in its own file: leave it out"):
        evaluate_all(parse([*arguments, option, value]))
    with pytest.raises(ConfigError, match=f"image_size: 64: .* is tested at {SIZE} pixels"):
        evaluate_all(parse([*arguments, "--image-size", "64"]))


def test_sets_of_ones_own_classes_in_the_same_layouts(tmp_path):
    """As demo scenes and digits are: no wnids, so a mask is the folder's classes and a number the run's own order."""
    classes = ("bench", "car", "tree", "zebra")
    own = load(str(make_classifier(tmp_path / "own", classes)))
    for i in range(4):
        for name in classes:
            picture(tmp_path / "sets" / "val" / name / f"{i}.png", (5, i, classes.index(name)))
            picture(
                tmp_path / "sets" / "imagenetv2" / str(classes.index(name)) / f"{i}.png", (5, i, classes.index(name))
            )
        for name in ("car", "zebra"):
            picture(tmp_path / "sets" / "imagenet-a" / name / f"{i}.png", (5, i, classes.index(name)))
    found = measure(own, tmp_path, root=str(tmp_path / "sets"))
    assert set(found) == {"imagenet", "a", "v2"}
    assert np.array_equal(found["imagenet"].per_image, found["v2"].per_image)
    assert found["a"].rule == "best of the 2 classes of the folder, which are not the set's 200"
    inside = np.isin(np.repeat(np.arange(4), 4), [1, 3])
    assert found["a"].per_image.sum() >= found["imagenet"].per_image[inside].sum()
