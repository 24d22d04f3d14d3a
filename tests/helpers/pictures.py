"""Small pictures with labels of pixels, some of them void, and networks that label them."""

import torch
from torch import nn

import mcbn

VOID = 9


def network(outputs):
    with torch.random.fork_rng():
        torch.manual_seed(outputs)
        return (
            nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, outputs, 1),
            )
            .double()
            .eval()
        )


def pictures(count=14, seed=0, void=0.2, size=(24, 18)):
    generator = torch.Generator().manual_seed(seed)
    # Double: in single precision the size of a batch changes the last digits of a convolution.
    x = torch.rand(count, 3, *size, generator=generator, dtype=torch.float64)
    y = x.argmax(1)
    y[torch.rand(y.shape, generator=generator) < void] = VOID
    return x, y


def sampler_of(outputs, x, draws=4):
    model = network(outputs)
    batches = mcbn.minibatches(x, batch_size=4, draws=draws)
    return mcbn.MCBatchNorm(model, mcbn.collect(model, batches, progress=False))
