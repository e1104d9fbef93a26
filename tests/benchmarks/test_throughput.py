"""The throughput benchmark: its statistics, what it compares, and a tiny run from command to files."""

import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from benchmarks.__main__ import main
from benchmarks.speed import timing
from benchmarks.speed.isolated import isolated
from benchmarks.speed.loader import PlainPipeline, photo_like, write_photos
from benchmarks.speed.step import PlainMean, Steps, StepSettings, build_optimizer, published_config
from benchmarks.speed.throughput import Throughput, run_throughput, table
from benchmarks.speed.timing import Comparison, Contender, compare, quartiles
from engine.data.images import index_images
from engine.data.order import SampleKey
from engine.errors import ConfigError
from pretrain.build import build_model

CPU = torch.device("cpu")
TINY = "test_resnet.r160_in1k"


def comparison(seconds_a, seconds_b, **more):
    return Comparison(measure="m", a="new", b="old", seconds_a=seconds_a, seconds_b=seconds_b, **more)


def settings(**changes):
    options = {"device": CPU, "batch_size": 2, "image_size": 64, "precision": "float32", "pairs": 1}
    return StepSettings(**(options | changes))


def test_ratio_is_the_median_of_the_pairs_ratios_not_the_ratio_of_medians():
    # The machine slows down threefold in the middle: every pair still says that a is twice as fast.
    row = comparison((1.0, 1.0, 3.0, 3.0, 3.0), (2.0, 2.0, 6.0, 6.0, 6.0)).row()
    assert row["speed_a_over_b"] == row["quartile_1"] == row["quartile_3"] == 2
    assert row["extra_time"] == -0.5
    assert row["images_per_second_a"] == pytest.approx(1 / 3)
    assert row["images_per_second_b"] == pytest.approx(1 / 6)
    assert row["pairs"] == 5


def test_quartiles_are_numpys():
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    assert quartiles(values) == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]))
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_pairs_alternate_their_order_and_the_warm_up_does_not_count():
    calls = []

    def contender(name, seconds):
        def run():
            calls.append(name)
            return seconds * (100 if len(calls) <= 2 else 1)

        return Contender(name=name, run=run)

    result = compare("m", contender("a", 1.0), contender("b", 3.0), pairs=3)
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert result.seconds_a == (1.0, 1.0, 1.0)
    assert result.speed_ratios == [3.0, 3.0, 3.0]


def test_short_work_is_repeated_until_the_clock_can_tell(monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.02)
    calls = []

    def work():
        calls.append(1)
        time.sleep(0.001)

    run = timing.timing(work, num_images=4, device=CPU)
    run()
    first = len(calls)
    seconds_per_image = run()
    assert len(calls) - first == first - 2  # the warm-up and the run that set the number of repeats come once
    assert first > 3
    assert seconds_per_image >= 0.001 / 4


def test_table_shows_ratio_spread_and_memory():
    rows = [comparison((1.0, 1.0, 1.0), (2.0, 2.2, 2.4), peak_bytes_a=3 * 10**9, peak_bytes_b=10**9).row()]
    text = table(pd.DataFrame(rows))
    assert "| 2.200         | 2.100 to 2.300 | -54.5%" in text
    assert "| 3.00   | 1.00   |" in text


def test_table_has_no_memory_columns_on_a_cpu():
    assert "GB" not in table(pd.DataFrame([comparison((1.0,), (2.0,)).row()]))


@pytest.mark.parametrize("method", ["a2mim", "simmim"])
def test_plain_step_trains_the_same_encoder_and_decoder(method):
    config = published_config("resnet10t", method, settings())
    torch.manual_seed(0)
    net = build_model(config).train()
    steps = Steps(config, PlainMean(net), build_optimizer(config, net), settings())
    before = {name: value.clone() for name, value in net.named_parameters()}
    steps.step()
    moved = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert {name for name in before if name.startswith("decoder.")} <= moved
    assert any(name.startswith("encoder.") for name in moved)
    assert not any(name.startswith("token.") for name in moved)
    Steps(config, net, build_optimizer(config, net), settings()).step()
    assert not torch.equal(net.token.mask_token, before["token.mask_token"])


def test_plain_loss_is_the_mean_absolute_error_of_all_pixels():
    config = published_config("resnet10t", "a2mim", settings())
    torch.manual_seed(0)
    net = build_model(config).eval()
    steps = Steps(config, PlainMean(net), build_optimizer(config, net), settings())
    x = net.normalise(steps.batch["image"])
    expected = (net.decoder(net.encoder(x)) - x).abs().mean()
    assert torch.equal(PlainMean(net)(steps.batch["image"], steps.batch["mask"])["mean"], expected)


def test_generated_photos_are_as_large_as_photos(tmp_path):
    write_photos(tmp_path, 4)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 4
    assert 60_000 < np.mean([path.stat().st_size for path in paths]) < 140_000
    with Image.open(paths[0]) as image:
        assert image.size == (500, 375)
    assert photo_like(0).std() > 20
    assert not np.array_equal(photo_like(0), photo_like(1))


def test_plain_pipeline_does_the_work_of_loader_and_device_together(tmp_path):
    write_photos(tmp_path, 2)
    plain = PlainPipeline(index_images(tmp_path, labelled=False), 64, (0.5, 1.0))
    sample = default_collate([plain[SampleKey(0, 0)], plain[SampleKey(0, 1)]])
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].shape == (2, 1, 64, 64)
    hidden = sample["mask"].bool().expand_as(sample["image"])
    mean = sample["target"].mean((2, 3), keepdim=True).expand_as(hidden)
    torch.testing.assert_close(sample["image"][hidden], mean[hidden])
    assert torch.equal(sample["image"][~hidden], sample["target"][~hidden])


def test_tiny_run_from_the_command_to_the_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.001)
    sizes = ["--image-size", "64", "--batch-size", "2", "--pairs", "1", "--num-images", "2"]
    assert main(["throughput", "--models", "resnet10t", *sizes, "--device", "cpu", "--output", str(tmp_path)]) == 0
    (csv,), (report,) = tmp_path.glob("*.csv"), tmp_path.glob("*.json")
    frame, record = pd.read_csv(csv), json.loads(report.read_text())
    measures = [
        *["loader, in process"] * 2,
        "loader, one worker",
        "decoding",
        "a2mim step, resnet10t",
        "a2mim frequency loss, resnet10t",
        "simmim step, resnet10t",
        *["a2mim step, resnet10t"] * 2,
    ]
    assert frame["measure"].tolist() == measures
    precisions = frame.iloc[-2:]  # in processes of their own
    assert precisions["a"].tolist() == ["bfloat16 + channels_last", "bfloat16 + channels_last + memory kept"]
    assert precisions["b"].tolist() == ["float32", "float32"]
    assert (frame[["images_per_second_a", "images_per_second_b", "speed_a_over_b"]] > 0).all(axis=None)
    assert [row["measure"] for row in record["rows"]] == measures
    assert all(len(row["seconds_a"]) == len(row["seconds_b"]) == 1 for row in record["timings"])
    assert {"date", "cpu", "num_cores", "git_commit", "versions", "device", "load_average", "options"} <= record.keys()
    assert "| speed A / B" in capsys.readouterr().out


def test_only_the_parts_and_folder_asked_for_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.001)
    write_photos(tmp_path / "images", 2)
    threads = torch.get_num_threads()
    options = Throughput(
        only=("loader",), data=tmp_path / "images", image_size=32, pairs=1, device="cpu", output=tmp_path / "out"
    )
    frame = run_throughput(options)
    assert [measure.split(",")[0] for measure in frame["measure"]] == ["loader", "loader", "loader", "decoding"]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": 0}, "--pairs is 0; allowed: 1 or more"),
        ({"image_size": 100}, "--image-size is 100; allowed: a multiple of 32, such as 96"),
        ({"batch_size": 1}, "--batch-size is 1; allowed: 2 or more"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        run_throughput(Throughput(output=tmp_path / "out", device="cpu", **change))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_an_absent_gpu_says_what_is_available(tmp_path):
    with pytest.raises(ConfigError, match="available: cpu"):
        run_throughput(Throughput(output=tmp_path, device="cuda"))


def test_a_contender_that_fails_in_its_process_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="ended before its answer"), isolated(_fails, keep_memory=False):
        pytest.fail("must not begin")
    assert "no such network" in capfd.readouterr().err


def _fails() -> Contender:
    raise ValueError("no such network")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_layouts_and_compilation_are_compared_with_their_memory(tmp_path):
    frame = run_throughput(
        Throughput(only=("precision",), models=("resnet18",), batch_size=8, pairs=1, output=tmp_path)
    )
    assert frame["a"].tolist() == [
        "bfloat16 + channels_last",
        "bfloat16 + channels_last",
        "bfloat16 + channels_last + compiled",
    ]
    assert (frame[["peak_bytes_a", "peak_bytes_b"]] > 0).all(axis=None)


def test_what_is_timed_is_the_step_of_a_run():
    config = published_config("resnet10t", "a2mim", settings())
    torch.manual_seed(0)
    net = build_model(config)
    steps = Steps(config, net, build_optimizer(config, net), settings())
    before = net.encoder.state_dict()["net.conv1.0.weight"].clone()
    steps.step()
    steps.step()
    assert steps.state.step == 2
    assert steps.state.meters.steps == 2
    assert not torch.equal(net.encoder.state_dict()["net.conv1.0.weight"], before)
    group = steps.optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(group["base_rate"], rel=1e-3), "the rate stays what it is while steps are timed"
