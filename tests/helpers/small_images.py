"""Small random images, and a conv net whose running statistics are those of some of them."""

import torch

from mcbn.tasks.networks import convnet


def images(count, seed=0):
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def small_convnet(dtype=torch.float32, *, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = convnet(1, 4, **options).to(dtype).train()
        with torch.no_grad():
            model(images(32, seed=7).to(dtype))
    return model.eval()
