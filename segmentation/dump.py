"""A run as a configuration file that MMSegmentation's own tools can run: `tools/train.py FILE.py`.

It trains the same model on the same samples with the same optimizer and schedule, but not the same random numbers, and
with mmengine's checkpoints and logs.
"""

import dataclasses
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mmengine.config import Config

from backbones.weights.released import PREFIX
from engine.config import check
from engine.errors import ConfigError
from engine.run import storage
from segmentation.config import DataConfig, SegmentationConfig
from segmentation.dataset import dataset_config
from segmentation.labels import spell_out
from segmentation.mmseg_adapter import (
    evaluation_pipeline,
    model_config,
    multi_scale_pipeline,
    training_pipeline,
)

_HEAD = '''"""Written by `python -m segmentation --dump-config`. Needs the suite's packages on PYTHONPATH.

batch_size is what one process trains with: divide it by the number of processes. AmpOptimWrapper needs a GPU: for a
CPU, dump with --precision float32. mmengine 0.10.7 cannot read its own checkpoints with torch 2.6 or newer, to resume
or to test, unless TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 is set; its fork onedl-mmengine 0.10.12 can.
"""
'''


def dump_config(config: SegmentationConfig, path: Path) -> None:
    """Write `config` as a configuration of MMSegmentation.

    Raises:
        ConfigError: it has problems.
        CheckpointError: the file cannot be written.
    """
    check(config)
    with redirect_stdout(io.StringIO()):
        text = Config(runner_config(config)).pretty_text
    with storage.storage_errors(path.parent):
        path.write_text(_HEAD + text)


def runner_config(config: SegmentationConfig) -> dict[str, Any]:
    """Everything that mmengine's Runner needs: model, data, optimizer, schedule, loops and hooks."""
    here = Path(config.data.root)  # of another machine, if it is not there
    root = str(here.absolute()) if here.is_dir() else config.data.root
    data = dataclasses.replace(config.data, root=root, classes=spell_out(config.data.classes))
    named = config.init == "none" or config.init.startswith(PREFIX)
    init = config.init if named else str(Path(config.init).absolute())
    return {
        "default_scope": "mmseg",
        "custom_imports": {"imports": ["segmentation.mmseg_adapter"], "allow_failed_imports": False},
        "model": model_config(config, init=init),
        "train_dataloader": _loader(config, data, train=True),
        "val_dataloader": _loader(config, data, train=False),
        "test_dataloader": _loader(config, data, train=False),
        "tta_model": {"type": "SegTTAModel"},  # for tools/test.py --tta
        "tta_pipeline": multi_scale_pipeline(config),
        "val_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "optim_wrapper": _optimizer(config),
        "param_scheduler": _schedule(config),
        "train_cfg": {
            "type": "IterBasedTrainLoop",
            "max_iters": config.iterations,
            "val_interval": config.evaluate_every or config.iterations,
        },
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "default_hooks": _hooks(config),
        "env_cfg": {
            "cudnn_benchmark": not config.deterministic,
            "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
            "dist_cfg": {"backend": "nccl"},
        },
        "sync_bn": "torch",  # only where there are several processes
        "randomness": {"seed": config.seed, "deterministic": config.deterministic},
        "vis_backends": [{"type": "LocalVisBackend"}],
        "visualizer": {
            "type": "SegLocalVisualizer",
            "vis_backends": [{"type": "LocalVisBackend"}],
            "name": "visualizer",
        },
        "log_processor": {"by_epoch": False},
        "log_level": "INFO",
        "load_from": None,
        "resume": False,
    }


def _loader(config: SegmentationConfig, data: DataConfig, *, train: bool) -> dict[str, Any]:
    pipeline = training_pipeline(config) if train else evaluation_pipeline(config)
    return {
        "batch_size": config.batch_size // config.accumulation if train else 1,
        "num_workers": config.data.num_workers,
        "persistent_workers": config.data.num_workers > 0,
        "sampler": {"type": "InfiniteSampler" if train else "DefaultSampler", "shuffle": train},
        "dataset": dataset_config(data, "training" if train else "validation", pipeline),
    }


def _optimizer(config: SegmentationConfig) -> dict[str, Any]:
    options = config.optimizer
    if options.name not in ("sgd", "adamw") or config.schedule.kind != "poly":
        raise ConfigError(
            f"optimizer.name is {options.name}, schedule.kind {config.schedule.kind}; files of MMSegmentation are "
            "written for sgd and adamw, and for poly"
        )
    optimizer: dict[str, Any] = {"type": "SGD", "lr": config.learning_rate, "momentum": options.momentum}
    if options.name == "adamw":
        optimizer = {"type": "AdamW", "lr": config.learning_rate, "betas": options.betas}
    wrapper: dict[str, Any] = {"type": "OptimWrapper"}
    if config.precision not in ("float32", "tf32"):  # this wrapper runs on a GPU only
        wrapper = {"type": "AmpOptimWrapper", "dtype": config.precision}
    return {
        **wrapper,
        "optimizer": optimizer,
        "constructor": "SuiteOptimizerConstructor",
        "paramwise_cfg": dataclasses.asdict(options),
        "accumulative_counts": config.accumulation,
        "clip_grad": None if options.clip_grad is None else {"max_norm": options.clip_grad},
    }


def _schedule(config: SegmentationConfig) -> list[dict[str, Any]]:
    schedule = config.schedule
    warmup = schedule.warmup_iterations
    poly = {
        "type": "PolyLR",
        "power": schedule.power,
        "eta_min": schedule.min_rate,
        "begin": warmup,
        "end": config.iterations,
        "by_epoch": False,
    }
    linear = {
        "type": "LinearLR",
        "start_factor": max(schedule.warmup_start, 1e-9),  # mmengine does not take 0
        "begin": 0,
        "end": warmup,
        "by_epoch": False,
    }
    return [linear, poly] if warmup else [poly]


def _hooks(config: SegmentationConfig) -> dict[str, Any]:
    return {
        "timer": {"type": "IterTimerHook"},
        "logger": {"type": "LoggerHook", "interval": config.log_every, "log_metric_by_epoch": False},
        "param_scheduler": {"type": "ParamSchedulerHook"},
        "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": config.checkpoint_every},
        "sampler_seed": {"type": "DistSamplerSeedHook"},
        "visualization": {"type": "SegVisualizationHook"},
    }
