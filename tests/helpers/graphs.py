"""Graphs of torch_geometric, and a network that classifies them."""

import warnings

import torch
from torch import nn

with warnings.catch_warnings():
    # The package uses what PyTorch deprecates.
    warnings.simplefilter("ignore")
    from torch_geometric.data import Batch, Data
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import GCNConv, global_mean_pool

__all__ = ["Batch", "Classifier", "Data", "DataLoader", "graphs"]


class Classifier(nn.Module):
    """One class per graph of a batch."""

    def __init__(self):
        super().__init__()
        self.convolution = GCNConv(4, 8)
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, data):
        hidden = self.norm(self.convolution(data.x, data.edge_index)).relu()
        return self.head(global_mean_pool(hidden, data.batch))


def graphs(number):
    """Graphs of 3 to 9 nodes."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(3, 10, (number,), generator=generator).tolist()
    return [
        Data(
            x=torch.randn(nodes, 4, generator=generator),
            edge_index=torch.randint(nodes, (2, 2 * nodes), generator=generator),
            y=torch.tensor([nodes % 3]),
        )
        for nodes in sizes
    ]
