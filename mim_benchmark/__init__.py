"""The suite from Python: `import mim_benchmark as mim`. The same recipes, run folders and weights as the commands.

    run = mim.pretrain("own", data="photos", run_dir="runs/mine", model="resnet18")
    tuned = mim.finetune("own", data="photos", run_dir="runs/mine-ft", model="resnet18", init=run)
    tuned.metrics["top1_best_last10"]
    mim.evaluate(tuned, data="other-photos")
    mim.evaluate("runs/mine", data="photos", protocol="knn", **{"data.val_share": 0.2})
    encoder = mim.load_encoder("runs/mine").backbone
    mim.export(tuned, "exported", "timm")

A cell may be run again: a run goes on where it stands, and a finished one is returned at once. Ctrl-C or a notebook's
stop button saves the run and raises StopRequested. Everything that can go wrong is a SuiteError with a sentence for
people. docs/python.md has examples.
"""

from mim_benchmark.encoders import export, load_encoder, load_model
from mim_benchmark.measure import evaluate
from mim_benchmark.runs import FinishedRun, finetune, pretrain
from suite_error import SuiteError

__all__ = ["FinishedRun", "SuiteError", "evaluate", "export", "finetune", "load_encoder", "load_model", "pretrain"]
