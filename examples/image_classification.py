"""A published image classifier, made stochastic by MCBN and compared with the plain network."""

# %% [markdown]
# # A published image classifier
#
# A published CIFAR-10 ResNet20, made stochastic by MCBN and compared with the plain network.
# The data folder (`MCBN_DATA`, by default `./data`) must contain CIFAR-10 and the weights in
# `cifar10_resnet_weights/`.

# %%
import os

from matplotlib.figure import Figure

import mcbn
from mcbn.tasks import datasets, networks

SMALL = "EXAMPLE_SIZE" in os.environ  # for tests; the results are then meaningless
IMAGES = 40 if SMALL else 300  # of the 1,000 lossless test images
DRAWS = 4 if SMALL else 16  # T
BATCH_SIZE = 32  # M; the network was trained at 128
RESAMPLES = 20 if SMALL else 500

# %%
train, test = datasets.cifar10_images()
inputs, targets = datasets.normalize_cifar10(test.inputs[:IMAGES]), test.targets[:IMAGES]
network = networks.load_resnet20(
    datasets.data_root() / "cifar10_resnet_weights/resnet20-12fca82f.th"
)

# %% [markdown]
# Inspect the batch-norm layers.

# %%
inspection = mcbn.inspect(
    network, datasets.normalize_cifar10(train.inputs[:32]), batch_size=BATCH_SIZE
)
print(inspection)

# %% [markdown]
# Collect a bank from mini-batches that are cropped and flipped as in training. Without this
# augmentation the network loses 2 to 3.5 points of accuracy.

# %%
batches = mcbn.minibatches(datasets.CropAndFlip(train), batch_size=BATCH_SIZE, draws=DRAWS, seed=0)
bank = mcbn.collect(network, batches)
print(bank)
print(mcbn.consistency(bank))

# %% [markdown]
# Predict and compare with the plain network on the same images.

# %%
comparison = mcbn.compare(
    {"Deterministic": mcbn.Deterministic(network), "MCBN": mcbn.MCBatchNorm(network, bank)},
    inputs,
    targets,
    classes=datasets.CIFAR10,
    resamples=RESAMPLES,
)
for name, entry in comparison.entries.items():
    print(name, *(f"{score} {entry.evaluation[score]}" for score in ("accuracy", "nll")))
print("NLL, MCBN - Deterministic:", comparison.differences()["MCBN"]["nll"])

# %% [markdown]
# Write a report.

# %%
report = mcbn.Report.from_comparison(comparison, title="CIFAR-10, published ResNet20")
print(report.write("image_classification"))

# %% [markdown]
# Plot the images with the highest uncertainty.

# %%
predictive = comparison.entries["MCBN"].predictive
most_uncertain = predictive.entropy.argsort(descending=True)[:8]
figure = Figure(figsize=(8, 4.6), layout="constrained")
for index, ax in zip(most_uncertain, figure.subplots(2, 4).flat, strict=True):
    ax.imshow(test.inputs[index].permute(1, 2, 0).numpy())
    predicted, true = (datasets.CIFAR10[int(k[index])] for k in (predictive.prediction, targets))
    ax.set_title(f"{predicted}, true: {true}\n{predictive.entropy[index]:.2f} nats", fontsize=9)
    ax.axis("off")
figure.savefig("image_classification/most_uncertain.png", dpi=120)
