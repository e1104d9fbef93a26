# %% [markdown]
# # Masked image modelling in five minutes, on a CPU
#
# Generated scenes, a short A2MIM pre-training, what the network makes of hidden parts, what pre-training changed inside
# it, and the encoder in timm. Nothing is downloaded but packages. Numbers of a run this short show that everything
# works; they measure nothing about the method.

# %%
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

# Where to clone from when this notebook is opened by itself, as in Colab: the address of the repository.
REPOSITORY = os.environ.get("MIM_REPOSITORY", "")

here = [folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "suite_tasks.py").is_file()]
if importlib.util.find_spec("suite_tasks") is None:
    if not here:
        if not REPOSITORY:
            raise SystemExit("Set REPOSITORY above to the address of the repository, then run this cell again.")
        subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "mim-benchmark"], check=True)
        here = [Path("mim-benchmark").absolute()]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", str(here[0])], check=True)
    sys.path.insert(0, str(here[0]))
os.environ.setdefault("MIM_TRACKERS", "")  # no TensorBoard files

# %%
# How much of everything; a test runs this notebook with less.
MODEL = os.environ.get("DEMO_MODEL", "resnet18")
SCENES = int(os.environ.get("DEMO_SCENES", "400"))
EPOCHS = int(os.environ.get("DEMO_EPOCHS", "16"))
SAMPLES = int(os.environ.get("DEMO_SAMPLES", "6"))  # images, pairs and contexts of the interactions
WORK = Path(os.environ.get("DEMO_FOLDER", "data/notebook"))

# %% [markdown]
# ## Scenes
#
# Every file is a function of a seed: ten classes of textured things on six grounds.

# %%
import matplotlib.pyplot as plt
from PIL import Image

from benchmarks.scenes.demo_data import write_demo_data

write_demo_data(WORK / "scenes", num_train=SCENES, num_val=max(SCENES // 5, 20), seed=0, say=lambda text: None)
DATA = WORK / "scenes" / "imagenet"
shown = sorted((DATA / "train").glob("*/*"))[:: max(SCENES // 8, 1)][:8]
figure, axes = plt.subplots(1, len(shown), figsize=(1.5 * len(shown), 1.7))
for ax, path in zip(axes, shown, strict=True):
    ax.imshow(Image.open(path))
    ax.set_title(path.parent.name, fontsize=8)
    ax.set_axis_off()
plt.show()

# %% [markdown]
# ## Pre-training
#
# `python -m pretrain demo --model resnet18 --method a2mim` is the same as a command. 60 % of the image is hidden in
# cells of 16 pixels; A2MIM fills them with the mean colour, puts its token into a middle stage, and asks for pixels and
# for their frequencies.

# %%
from dataclasses import replace

from pretrain.recipes import demo
from pretrain.train import train

config = demo(model=MODEL, method="a2mim")
config = replace(config, epochs=EPOCHS, data=replace(config.data, root=str(DATA / "train"), num_workers=0))
RUN = WORK / "a2mim"
metrics = train(config, RUN, recipe="demo", resume=RUN.exists())
metrics

# %%
import json

lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
trained = [line for line in lines if line["split"] == "train"]
figure, ax = plt.subplots(figsize=(4.5, 2.8), layout="constrained")
ax.plot([line["epoch"] for line in trained], [line["loss"] for line in trained])
ax.set_xlabel("Epoch")
ax.set_ylabel("Training loss")
plt.show()

# %% [markdown]
# ## Masks and reconstructions
#
# Original, what the network sees, what it predicts, and the prediction where the image was hidden.

# %%
panel = Image.open(sorted((RUN / "panels").glob("epoch_*.png"))[-1])
panel

# %% [markdown]
# ## What changed inside: interactions
#
# How strongly pairs of image parts act together, by how many other parts are seen: the order, as a fraction of all n
# parts. `random:` is the same network before training. An encoder has no classifier, so a linear probe on its features
# says how sure it is of the class.

# %%
from analysis.__main__ import main as analysis

BEFORE = f"random:{MODEL}"
COMMON = ["--init", BEFORE, str(RUN), "--labels", "before", "after A2MIM", "--data.root", str(DATA)]
size = ["--images", str(SAMPLES), "--pairs", str(SAMPLES), "--contexts", str(SAMPLES)]
fewer = ["--orders", "0", "0.1", "0.3", "0.5", "0.7", "0.9", "1"]
analysis(["interactions", *COMMON, *size, *fewer, "--image-size", "64", "--out", str(WORK / "J")])
Image.open(WORK / "J" / "interactions.png")

# %% [markdown]
# ## What changed inside: frequencies
#
# The log amplitude of feature maps at their highest frequency, and their variance, after every residual branch.

# %%
analysis(["fourier", *COMMON, "--images", str(10 * SAMPLES), "--image-size", "128", "--out", str(WORK / "F")])
Image.open(WORK / "F" / "fourier.png")

# %%
Image.open(WORK / "F" / "fourier-spectra.png")

# %% [markdown]
# ## The encoder in timm
#
# `backbone.safetensors` has timm's names: any program that uses timm takes it.

# %%
import timm
import torch
from safetensors.torch import load_file

network = timm.create_model(MODEL, num_classes=0)
missing = network.load_state_dict(load_file(RUN / "backbone.safetensors"), strict=False)
with torch.inference_mode():
    features = network.eval()(torch.randn(2, 3, 64, 64))
print("features", tuple(features.shape), "missing", missing.missing_keys, "left over", missing.unexpected_keys)
