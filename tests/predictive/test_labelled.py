"""Whatever holds the examples and their targets, the scores are the same."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import mcbn

INPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))


class Examples(Dataset):
    """Examples that are dicts of arrays and numbers."""

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"features": INPUTS[index].numpy(), "labels": int(TARGETS[index])}


PAIRS = TensorDataset(INPUTS, TARGETS)
HELD: dict[str, tuple[Any, Any]] = {
    "arrays": (INPUTS.numpy(), TARGETS.numpy()),
    "a frame and a column": (pd.DataFrame(INPUTS.numpy()), pd.Series(TARGETS.numpy())),
    "a frame of float64": (pd.DataFrame(INPUTS.double().numpy()), TARGETS),
    "a set of pairs": (PAIRS, None),
    "a set of dicts": (Examples(), None),
    "a loader": (DataLoader(PAIRS, batch_size=7), None),
    "a loader with workers": (DataLoader(Examples(), batch_size=7, num_workers=2), None),
    "a set, with its targets apart": (PAIRS, TARGETS.tolist()),
}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(8, momentum=None)
        network = nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        network(INPUTS)  # gives the running statistics
    return network.eval()


@pytest.fixture(scope="module")
def bank(network: nn.Module) -> mcbn.Bank:
    return mcbn.collect(network, mcbn.minibatches(INPUTS, batch_size=8, draws=6), progress=False)


@pytest.fixture(params=HELD.values(), ids=HELD)
def held(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    pair: tuple[Any, Any] = request.param
    return pair


def scores(network: nn.Module, bank: mcbn.Bank, inputs: Any, targets: Any) -> list[float]:
    samplers = {"plain": mcbn.Deterministic(network), "mcbn": mcbn.MCBatchNorm(network, bank)}
    comparison = mcbn.compare(samplers, inputs, targets, resamples=0, progress=False)
    return [each["nll"].value for each in comparison.evaluations.values()]


def test_compare(network: nn.Module, bank: mcbn.Bank, held: tuple[Any, Any]) -> None:
    assert scores(network, bank, *held) == pytest.approx(
        scores(network, bank, INPUTS, TARGETS), rel=1e-6
    )


def test_compare_networks_that_return_probabilities(network: nn.Module, bank: mcbn.Bank) -> None:
    def scored(network: nn.Module, **likelihood: Any) -> list[float]:
        comparison = mcbn.compare(
            {"plain": mcbn.Deterministic(network), "mcbn": mcbn.MCBatchNorm(network, bank)},
            INPUTS, TARGETS, outside={"far": 5 * INPUTS}, resamples=0, progress=False,
            **likelihood,
        )  # fmt: skip
        entries = comparison.entries.values()
        return [
            number
            for each in entries
            for number in (each.evaluation["nll"].value, float(each.outside["far"].entropy.mean()))
        ]

    softmax = nn.Sequential(*network.children(), nn.Softmax(dim=1)).eval()
    known = mcbn.Categorical(outputs="probabilities")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said, so there is nothing to guess
        actual = scored(softmax, likelihood=known)
    assert actual == pytest.approx(scored(network), rel=1e-5)
    with pytest.warns(UserWarning, match="taken for probabilities"):
        scored(softmax)


def test_choose_batch_size(network: nn.Module, bank: mcbn.Bank, held: tuple[Any, Any]) -> None:
    def best(inputs: Any, targets: Any) -> float:
        return mcbn.choose_batch_size(
            network, bank, inputs, targets, points=5, resamples=2, progress=False
        ).value

    assert best(*held) == pytest.approx(best(INPUTS, TARGETS), rel=1e-6)


def test_inspect(network: nn.Module, held: tuple[Any, Any]) -> None:
    assert mcbn.inspect(network, held[0]).observation is not None


FITS: dict[str, Callable[[mcbn.CategoricalPredictive, Any], Any]] = {
    "evaluate": lambda made, held: mcbn.evaluate(made, held, resamples=0)["nll"].value,
    "temperature": lambda made, held: mcbn.TemperatureScaling.fit(made, held).temperature,
    "vector": lambda made, held: mcbn.VectorScaling.fit(made, held).scales,
    "isotonic": lambda made, held: mcbn.Isotonic.fit(made, held).values,
    "conformal": lambda made, held: mcbn.ConformalSets.fit(made, held).threshold,
    "coverage": lambda made, held: mcbn.PredictionSets(made.probabilities > 0.3).coverage(held),
}
LABELS = {
    "an array": TARGETS.numpy(),
    "a list": TARGETS.tolist(),
    "a column": pd.Series(TARGETS.numpy()),
    "a data set": PAIRS,
    "a loader": DataLoader(Examples(), batch_size=7),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_what_is_fitted_to_classes(
    network: nn.Module, bank: mcbn.Bank, fit: Callable[..., Any], labels: Any
) -> None:
    made = mcbn.predict(mcbn.MCBatchNorm(network, bank), INPUTS, keep_draws=True, progress=False)
    assert fit(made, labels) == fit(made, TARGETS)


@pytest.mark.parametrize(
    "hold",
    [np.asarray, list, pd.Series, lambda values: TensorDataset(INPUTS, torch.tensor(values))],
)
def test_what_is_fitted_to_real_values(
    network: nn.Module, bank: mcbn.Bank, hold: Callable[[Any], Any]
) -> None:
    sampler = mcbn.MCBatchNorm(network, bank, output=lambda outputs: outputs[:, :1])
    made = mcbn.predict(sampler, INPUTS, mcbn.Gaussian(1.0), progress=False)
    values: Tensor = INPUTS.sum(1).double()
    held = hold(values.numpy())
    for fit in (mcbn.fit_precision, mcbn.VarianceScaling.fit, mcbn.ConformalIntervals.fit):
        assert fit(made, held) == fit(made, values)
    assert mcbn.evaluate(made, held, resamples=0) is not None


def test_missing_values_of_a_column_are_refused(network: nn.Module, bank: mcbn.Bank) -> None:
    sampler = mcbn.MCBatchNorm(network, bank, output=lambda outputs: outputs[:, 0])
    made = mcbn.predict(sampler, INPUTS, mcbn.Gaussian(1.0), progress=False)
    column = pd.Series([None, *range(39)], dtype="Float64")
    with pytest.raises(ValueError, match="expected finite numbers in targets"):
        mcbn.evaluate(made, column, resamples=0)


def test_targets_are_needed(network: nn.Module) -> None:
    samplers = {"plain": mcbn.Deterministic(network)}
    with pytest.raises(TypeError, match="expected targets beside a Tensor"):
        mcbn.compare(samplers, INPUTS, progress=False)
    with pytest.raises(TypeError, match="expected batches of inputs and their targets"):
        mcbn.compare(samplers, TensorDataset(INPUTS), progress=False)
