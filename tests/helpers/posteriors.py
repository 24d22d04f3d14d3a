"""Posteriors as laplace-torch makes them, without it: independent noise on some weights."""

import torch
from torch import Tensor, nn


class Posterior:
    """Of all weights that require gradients; draws come from the global stream."""

    def __init__(self, model: nn.Module, spread: float = 0.1) -> None:
        self.model, self.spread = model, spread
        self.params = [weight for weight in model.parameters() if weight.requires_grad]
        self.mean = torch.cat(
            [weight.detach().reshape(-1) for weight in self.params] or [torch.zeros(0)]
        )

    def sample(self, n_samples: int = 100) -> Tensor:
        """Draws of the weights, in rows."""
        return self.mean + self.spread * torch.randn(n_samples, len(self.mean)).to(self.mean)


class Extractor(nn.Module):
    """A network that keeps the inputs of its last layer, as that of laplace-torch does."""

    def __init__(self, model: nn.Module, last_layer: nn.Module) -> None:
        super().__init__()
        self.model, self.features = model, {}
        object.__setattr__(self, "last_layer", last_layer)
        last_layer.register_forward_hook(
            lambda module, args, output: self.features.update(last=args[0])
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class LastLayerPosterior(Posterior):
    """Of the weights of the last layer."""

    def __init__(self, model: nn.Module, last_layer: nn.Module, spread: float = 0.1) -> None:
        super().__init__(last_layer, spread)
        self.model = Extractor(model, last_layer)
