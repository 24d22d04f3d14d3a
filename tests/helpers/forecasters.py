"""Forecasters of known calibration, and their scores without a progress bar."""

import torch

import mcbn


def evaluate(predictive, targets, resamples=0, **options):
    return mcbn.evaluate(predictive, targets, resamples=resamples, progress=False, **options)


def drawn(probabilities, seed):
    """A label for each row, drawn from its probabilities."""
    generator = torch.Generator().manual_seed(seed)
    flat = probabilities.movedim(1, -1)
    labels = torch.multinomial(flat.reshape(-1, flat.shape[-1]), 1, generator=generator)
    return labels.reshape(flat.shape[:-1])


def forecaster(batch=300, classes=4, positions=(), sharpness=1.0, seed=0, draws=1):
    """Predictions whose logits are the true ones times `sharpness`, and labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, classes, *positions)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = drawn(logits.softmax(1), seed + 1)
    jitter = 0.5 * torch.randn((draws, *shape), generator=generator, dtype=torch.float64)
    stack = sharpness * logits + (jitter if draws > 1 else 0 * jitter)
    return mcbn.Categorical().summarize(stack), targets


def regressor(batch=300, outputs=(), precision=4.0, seed=0, draws=5):
    """Targets of noise variance 1/4 about the means, predicted with another precision."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    truth = normal(batch, *outputs)
    targets = truth + 0.5 * normal(batch, *outputs)
    means = truth + 0.05 * normal(draws, batch, *outputs)
    return mcbn.Gaussian(precision=precision).summarize(means), targets


def grouped(examples=400, draws=4, hard=("b",), names="abcd"):
    """Predictions, labels and groups in turn; labels of the groups in `hard` are random."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(examples, 3, generator=generator).double()
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    groups = tuple(names[k % len(names)] for k in range(examples))
    for place, group in enumerate(groups):
        if group in hard:
            targets[place] = int(torch.randint(3, (), generator=generator))
    noise = 0.3 * torch.randn(draws, examples, 3, generator=generator).double()
    return mcbn.Categorical().summarize(logits + noise * (draws > 1)), targets, groups
