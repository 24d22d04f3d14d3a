"""A network trained at a large batch size: M chosen from its one bank, compared with real banks.

Run: python -m experiments.choosing.large_batch
(about 5 minutes on one core; data root in MCBN_DATA)
"""

import json
import math
import warnings
from functools import partial

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import mcbn
from experiments.choosing.rescaling import Case
from experiments.record import RESULTS, STYLE, rounded
from mcbn.drawing import figures
from mcbn.io.tensors import write_whole
from mcbn.tasks.datasets import LabeledData, mnist
from mcbn.tasks.networks import mlp
from mcbn.tasks.training import build, train

TRAINED_AT, TRAINED_ON = 1024, 4096  # M and N
HELD_OUT = 2000  # number of validation images used, of 5,000
GRID = (8, 16, 32, 64, 128, 256, 512, 1024)  # M of the real banks
RESULT = RESULTS / "large_batch.json"
FIGURE = RESULT.with_suffix(".svg")


def main() -> None:
    """Measure, write the result and draw the figure."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    result = rounded(large_batch())
    write_whole(RESULT, (json.dumps(result, indent=1) + "\n").encode())
    draw(json.loads(RESULT.read_text()))


def large_case() -> tuple[Case, LabeledData]:
    """A dense network trained at M = 1,024 on 4,096 MNIST digits, with held-out and test digits."""
    task = mnist(train_size=TRAINED_ON)
    data, held_out, test = (
        LabeledData(part.inputs.flatten(1), part.targets)
        for part in (task.train, task.validation.rows(torch.arange(HELD_OUT)), task.test)
    )
    network = build(lambda: mlp(784, 10, width=128, depth=3, dropout=0.0), seed=0)
    train(network, data, epochs=60, batch_size=TRAINED_AT)
    dataset = TensorDataset(data.inputs)
    case = Case(network, dataset, held_out.inputs, held_out.targets, TRAINED_AT, draws=64)
    return case, test


def large_batch() -> dict:
    """Choose M from the bank at M = 1,024, and again while at a bound; compare with real banks."""
    case, test = large_case()
    network, held_out = case.network, LabeledData(case.inputs, case.targets)
    origin = case.bank(TRAINED_AT, seed=0)
    ask = partial(
        mcbn.choose_batch_size, network, inputs=held_out.inputs, targets=held_out.targets, points=9
    )
    choices = {"first": ask(origin), "first, wide": ask(origin, bounds=(GRID[0], TRAINED_ON))}
    banks = {
        "MCBN at 1024": origin,
        "rescaled to the first choice": origin.rescale(choices["first"].best),
        "rescaled to the wide choice": origin.rescale(choices["first, wide"].best),
    }
    # If the best M lies at a bound, collect a bank there and choose again.
    bank, choice, seed = origin, choices["first"], 100
    while choice.at_bound:
        bank = case.bank(round(choice.best), seed=seed)
        choice = choices[f"again, from {round(choice.best)}"] = ask(bank)
        seed += 1
    banks["rescaled to the last choice"] = bank.rescale(choice.best)
    for name, each in choices.items():
        print(name, each, sep="\n", flush=True)
    real = {size: case.bank(size, seed=1 + index) for index, size in enumerate(GRID)}
    on_validation = {size: float(losses(network, b, held_out).mean()) for size, b in real.items()}
    best = min(on_validation, key=lambda size: on_validation[size])
    banks["best of the real grid"] = real[best]
    losses_by_method = {"running statistics": losses(network, None, test)}
    losses_by_method |= {name: losses(network, bank, test) for name, bank in banks.items()}
    return {
        "trained_at": TRAINED_AT,
        "trained_on": TRAINED_ON,
        "draws": case.draws,
        "choices": {name: each.to_dict() for name, each in choices.items()},
        "real_banks_validation_nll": on_validation,
        "best_real": best,
        "test_nll": {name: mean_and_error(values) for name, values in losses_by_method.items()},
        "test_nll_minus_best_real": {
            name: mean_and_error(values - losses_by_method["best of the real grid"])
            for name, values in losses_by_method.items()
        },
    }


def losses(network: nn.Module, bank: mcbn.Bank | None, data: LabeledData) -> Tensor:
    """Negative log-likelihood of each example; without a bank, by running statistics."""
    sampler = mcbn.MCBatchNorm(network, bank) if bank else mcbn.Deterministic(network)
    predictive = mcbn.predict(sampler, data.inputs)
    return -predictive.log_probabilities.gather(1, data.targets[:, None])[:, 0]


def mean_and_error(values: Tensor) -> list[float]:
    """Mean over examples and its standard error."""
    return [float(values.mean()), float(values.std()) / len(values) ** 0.5]


def draw(result: dict) -> None:
    """Plot the held-out NLL of rescaled banks, by their original bank, and of real banks."""
    real = result["real_banks_validation_nll"]
    curves = [curve_of("real banks", [float(size) for size in real], list(real.values()), 0)]
    for style, (name, choice) in enumerate(result["choices"].items(), start=1):
        if name != "first":
            label = f"rescaled from {choice['bank_size']:g}"
            curves.append(curve_of(label, choice["batch_sizes"], choice["values"], style))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 3.8), layout="constrained")
        ax = figure.subplots()
        figures.draw_curves(curves, ax)
        figures.doubling_axis([int(size) for size in real], ax, label="Batch size")
        ax.set(ylabel="Held-out NLL", ylim=(None, 1.1 * max(real.values())))
        ax.legend(ax.get_lines(), [curve.name for curve in curves], frameon=False)
        figure.savefig(FIGURE, metadata=dict.fromkeys(("Date", "Creator")))


def curve_of(name: str, x: list[float], y: list[float], style: int) -> figures.Curve:
    """A curve without a band."""
    nothing = (math.nan,) * len(x)
    return figures.Curve(name, tuple(x), tuple(y), nothing, nothing, style)


if __name__ == "__main__":
    main()
