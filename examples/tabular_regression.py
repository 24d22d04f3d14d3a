"""Regression on tabular data: train, fit the noise, score, plot."""

# %% [markdown]
# # Regression on tabular data
#
# A small network on the diabetes data set of scikit-learn (442 patients, 10 measurements; the
# target is the progression of the disease after a year). It needs no download.

# %%
import os

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

import mcbn
from mcbn.tasks import datasets, networks, training

SMALL = "EXAMPLE_SIZE" in os.environ  # for tests; the results are then meaningless
EPOCHS = 40
BATCH_SIZE = 32  # of training, and M of the bank
DRAWS = 8 if SMALL else 100  # T
RESAMPLES = 20 if SMALL else 500

# %% [markdown]
# Three parts: for training, fitting the noise and testing. Everything is standardised on the first.

# %%
inputs, targets = (torch.tensor(array).float() for array in load_diabetes(return_X_y=True))
targets = targets[:, None]
order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
train, held_out, test = order[:290], order[290:360], order[360:]
inputs = (inputs - inputs[train].mean(0)) / inputs[train].std(0)
mean, scale = float(targets[train].mean()), float(targets[train].std())
standard = (targets - mean) / scale

# %%
network = training.build(lambda: networks.mlp(10, 1, width=50, dropout=0.0), seed=0)
training.train(
    network,
    datasets.LabeledData(inputs[train], standard[train]),
    epochs=EPOCHS,
    batch_size=BATCH_SIZE,
    loss="mse",
)

# %%
batches = mcbn.minibatches(inputs[train], batch_size=BATCH_SIZE, draws=DRAWS, seed=0)
bank = mcbn.collect(network, batches)
samplers = {"plain": mcbn.Deterministic(network), "MCBN": mcbn.MCBatchNorm(network, bank)}

# %% [markdown]
# The precision of the noise is fitted on held-out data, for each method on its own. Scores are in
# the units of the target.

# %%
predictives, evaluations = {}, {}
for name, sampler in samplers.items():
    provisional = mcbn.predict(sampler, inputs[held_out], mcbn.Gaussian(precision=1.0))
    noise = mcbn.fit_precision(provisional, standard[held_out])
    predictive = mcbn.predict(sampler, inputs[test], noise).in_units(mean, scale)
    predictives[name] = predictive
    evaluations[name] = mcbn.evaluate(predictive, targets[test], resamples=RESAMPLES)
    print(name, *(f"{score} {evaluations[name][score]}" for score in ("rmse", "pll", "crps")))
    print("  coverage of the 90% interval:", evaluations[name]["coverage_90"])
for score, difference in evaluations["MCBN"].minus(evaluations["plain"]).items():
    print(f"{score}, MCBN - plain: {difference}")

# %% [markdown]
# Left: sorted predictions with their 90% intervals. Right: share of targets below each predicted
# quantile; calibrated predictions lie on the diagonal.

# %%
predictive = predictives["MCBN"]
low, high = (end[:, 0] for end in predictive.interval(0.9))
rank = predictive.mean[:, 0].argsort()
place = torch.arange(len(test))
figure = Figure(figsize=(9, 4), layout="constrained")
left, right = figure.subplots(1, 2)
left.fill_between(place, low[rank], high[rank], alpha=0.25, label="90% interval")
left.plot(place, predictive.mean[rank, 0], label="mean")
left.plot(place, targets[test][rank, 0], ".", label="target")
left.set(xlabel="test patients, by predicted mean", ylabel="progression of the disease")
left.legend()
for name, each in predictives.items():
    pit = each.cdf(targets[test]).flatten().sort().values
    right.plot(pit, (place + 1) / len(test), label=name)
right.plot([0, 1], [0, 1], linestyle="--", color="grey")
right.set(xlabel="predicted quantile", ylabel="share of targets below it")
right.legend()
figure.savefig("tabular_regression.png", dpi=120)
