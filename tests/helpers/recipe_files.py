"""The files that the readers of docs/recipes have: trained networks and their data, all tiny."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

CLASSES = 3


def streets(number: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures of a road under a sky, with a car on it and some pixels without a label."""
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    horizon, place = torch.randint(8, 14, (number, 1, 1)), torch.randint(2, 24, (number, 1, 1))
    masks = (rows >= horizon).long()
    car = (rows >= horizon - 2) & (rows < horizon + 4) & ((columns - place).abs() < 4)
    masks = masks.masked_fill(car, 2)
    colors = torch.tensor([[0.5, 0.6, 0.9], [0.4, 0.4, 0.4], [0.7, 0.2, 0.3]])
    pictures = colors[masks].movedim(-1, 1) + 0.25 * torch.randn(number, 3, 24, 32)
    masks[torch.rand(masks.shape) < 0.1] = 255
    return pictures.clamp(0, 1), masks


def masks() -> None:
    def block(inputs: int, outputs: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.deep, self.up = block(3, 8), block(8, 16), block(24, 8)
            self.head = nn.Conv2d(8, 3, 1)

        def forward(self, pictures: Tensor) -> Tensor:
            fine = self.down(pictures)
            coarse = self.deep(nn.functional.max_pool2d(fine, 2))
            coarse = nn.functional.interpolate(coarse, scale_factor=2)
            return self.head(self.up(torch.cat([fine, coarse], 1)))

    network = UNet()
    data = {name: streets(number) for name, number in (("train", 80), ("test", 30))}
    for name, (pictures, labels) in data.items():
        np.savez(f"{name}.npz", pictures=pictures.numpy(), masks=labels.numpy().astype(np.uint8))
    pictures, labels = data["train"]
    known = labels.where(labels != 255, torch.tensor(-100))  # which the loss leaves out
    train(network, TensorDataset(pictures, known), epochs=8, size=8)
    torch.save(network.state_dict(), "weights.pt")


def findings() -> None:
    """Scans of patients with 14 findings, each a bright patch; some nobody looked for."""

    def block(inputs: int, outputs: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))

    layers = block(1, 16), block(16, 32), nn.Flatten(), nn.Linear(32 * 16, 14)
    network, where = nn.Sequential(*layers), torch.randint(0, 14, (14, 2))
    for name, number in (("test", 400), ("train", 1200)):
        patients = torch.arange(number) // 2
        prone = torch.randn(number // 2, 14)[patients] - 1.6
        labels = (prone + torch.randn(number, 14) > 0).float()
        scans = 0.9 * torch.randn(number, 1, 16, 16)
        for k, (row, column) in enumerate(where.tolist()):
            scans[:, 0, row : row + 3, column : column + 3] += labels[:, k, None, None]
        known = torch.where(torch.rand(labels.shape) < 0.05, -1, labels.long())
        np.savez(f"{name}.npz", scans=scans.numpy(), findings=known.numpy(),
                 patients=patients.numpy())  # fmt: skip
    loss = nn.functional.binary_cross_entropy_with_logits
    train(network, TensorDataset(scans, labels), epochs=8, lr=0.003, loss=loss)
    torch.save(network.state_dict(), "weights.pt")


def finer_pictures() -> None:
    """Smooth pictures in two resolutions."""

    def block(inputs: int, outputs: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    last = nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2)
    network = nn.Sequential(block(1, 16), block(16, 16), *last)
    for name, number in (("test", 24), ("validation", 24), ("train", 160)):
        rough = torch.randn(number, 1, 6, 6)
        fine = nn.functional.interpolate(rough, (32, 32), mode="bicubic")
        fine += 0.1 * torch.randn(fine.shape)
        coarse = nn.functional.avg_pool2d(fine, 2)
        np.savez(f"{name}.npz", coarse=coarse.numpy(), fine=fine.numpy())
    train(network, TensorDataset(coarse, fine), epochs=12, size=8)
    torch.save(network.state_dict(), "weights.pt")


def write(page: str) -> None:
    """Write the files of a page into the working folder."""
    if page in FILES:
        torch.manual_seed(0)
        FILES[page]()


def train(
    model: nn.Module,
    data: Any,
    *,
    epochs: int,
    lr: float = 0.01,
    size: int = 32,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> None:
    """Train on pairs of inputs and targets, or a loader, by the loss that fits the targets."""
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=size, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    # Small steps at the end let the running statistics follow the weights.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, total_iters=epochs)
    model.train()
    for _ in range(epochs):
        for batch in data:
            inputs, targets = batch if isinstance(batch, list) else (batch, batch.y)
            real = targets.is_floating_point()
            usual = nn.functional.mse_loss if real else nn.functional.cross_entropy
            optimizer.zero_grad()
            (loss or usual)(model(inputs), targets).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def stripes(number: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures of stripes: flat, upright and diagonal ones by turns."""
    targets = torch.arange(number) % CLASSES
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    across = torch.stack([rows + columns, rows, columns])[targets]
    phase = 8 * torch.rand(number, 1, 1)
    gray = 0.5 + 0.2 * torch.sin((across + phase) * 0.8) + 0.25 * torch.randn(number, 32, 32)
    return gray.clamp(0, 1)[:, None].repeat(1, 3, 1, 1), targets


def pictures() -> None:
    import timm  # noqa: PLC0415 - as below, only where it is needed: it takes seconds
    from torchvision import datasets, transforms  # noqa: PLC0415

    for part, number in (("train", 120), ("val", 30), ("test", 60)):
        images, targets = stripes(number)
        for index, (image, target) in enumerate(zip(images, targets, strict=True)):
            folder = Path("pictures", part, ("diagonal", "flat", "upright")[target])
            folder.mkdir(parents=True, exist_ok=True)
            array = (255 * image).permute(1, 2, 0).byte().numpy()
            Image.fromarray(array).save(folder / f"{index}.png")
    model = timm.create_model("test_resnet", num_classes=CLASSES)
    augmented = transforms.Compose([
        transforms.RandomCrop(32, padding=2),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
    ])  # fmt: skip
    train(model, datasets.ImageFolder("pictures/train", augmented), epochs=10, lr=0.003, size=16)
    torch.save(model.state_dict(), "weights.pt")


def augmented_pictures() -> None:
    """Stripes, and a network trained on random crops of them and their mirror images."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 49, CLASSES),
    )  # fmt: skip
    for name, number in (("test", 200), ("train", 240)):
        images, targets = stripes(number)
        images += torch.randn(images.shape)
        np.savez(f"{name}.npz", pictures=images.numpy(), classes=targets.numpy())
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    corners = torch.randint(0, 9, (8 * 240, 2)).tolist()
    crops = [padded[i % 240, :, y : y + 32, x : x + 32] for i, (y, x) in enumerate(corners)]
    crops = [crop.flip(-1) if i // 240 % 2 else crop for i, crop in enumerate(crops)]
    train(network, TensorDataset(torch.stack(crops), targets.repeat(8)), epochs=6)
    torch.save(network.state_dict(), "weights.pt")


def model_of_transformers() -> None:
    from transformers import (  # noqa: PLC0415
        ResNetConfig,
        ResNetForImageClassification,
    )

    parts = {}
    for part, number in (("train", 120), ("validation", 30), ("test", 60)):
        parts[part], parts[f"{part}_labels"] = stripes(number)
    torch.save(parts, "pictures.pt")
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    model = ResNetForImageClassification(config)
    train(_Logits(model), TensorDataset(parts["train"], parts["train_labels"]), epochs=10, size=16)
    model.save_pretrained("my_model")


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs).logits
        return logits


def graphs() -> None:
    # It imports torch_geometric without its warnings.
    import graphs as given  # noqa: PLC0415
    from torch_geometric.nn import BatchNorm, GINConv, global_add_pool  # noqa: PLC0415

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = GINConv(nn.Linear(4, 16))
            self.norm, self.head = BatchNorm(16), nn.Linear(16, CLASSES)

        def forward(self, data: Any) -> Tensor:
            hidden = self.norm(self.convolution(data.x, data.edge_index)).relu()
            logits: Tensor = self.head(global_add_pool(hidden, data.batch))
            return logits

    all_graphs = given.graphs(300)
    for index, each in enumerate(all_graphs):
        each.y = torch.tensor([index % CLASSES])
        each.x += 1.2 * torch.eye(4)[index % CLASSES]
    model = Classifier()
    loader = given.DataLoader(all_graphs[:200], batch_size=16, shuffle=True, drop_last=True)
    train(model, loader, epochs=15, lr=0.02)
    torch.save(all_graphs[:200], "train.pt")
    torch.save(all_graphs[200:], "test.pt")
    torch.save(model.state_dict(), "weights.pt")


def sounds() -> None:
    """Tones with other harmonics for each class; bells have the third one alone."""
    time = torch.arange(512) / 8000
    strengths = torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 0, 0], [1.0, 0, 1, 1], [0, 0, 1, 0]])
    arrays = {"silence": torch.randn(60, 1, 512)}
    for part, number in (("train", 300), ("val", 40), ("test", 100), ("bells", 60)):
        kinds = torch.full((number,), 3) if part == "bells" else torch.arange(number) % CLASSES
        pitch, phase = 200 + 200 * torch.rand(number, 1, 1), torch.rand(number, 4, 1)
        waves = torch.sin(2 * torch.pi * (torch.arange(1, 5)[:, None] * pitch * time + phase))
        tones = (strengths[kinds, :, None] * waves).sum(1, keepdim=True)
        arrays[part], arrays[f"{part}_classes"] = tones + torch.randn(number, 1, 512), kinds
    model = nn.Sequential(
        nn.Conv1d(1, 8, 32, stride=8), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Conv1d(8, 16, 8, stride=4), nn.BatchNorm1d(16), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, CLASSES),
    )  # fmt: skip
    train(model, TensorDataset(arrays["train"], arrays["train_classes"]), epochs=15)
    np.savez("sounds.npz", **{name: values.numpy() for name, values in arrays.items()})
    torch.save(model.state_dict(), "weights.pt")


def table() -> None:
    """Prices of houses, in thousands."""
    area, age, distance = torch.tensor([[120.0], [60], [20]]) * torch.rand(3, 500)
    price = 3 * area * (1 - age / 120) + 200 / (1 + distance) + 20 * torch.randn(500)
    columns = {"area": area, "age": age, "distance": distance, "price": price}
    frame = pd.DataFrame({name: values.double().numpy() for name, values in columns.items()})
    frame.to_csv("houses.csv", index=False)
    scaled = (frame - frame[:300].mean()) / frame[:300].std()
    rows = torch.tensor(scaled[:300].to_numpy()).float()
    model = nn.Sequential(
        nn.Linear(3, 32), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1),
    )  # fmt: skip
    train(model, TensorDataset(rows[:, :3], rows[:, 3:]), epochs=30)
    torch.save(model.state_dict(), "weights.pt")


def lightning_checkpoint() -> None:
    """A checkpoint with the entries that the Trainer of Lightning writes."""
    inputs = torch.randn(400, 8)
    targets = (inputs[:, :3] + 0.5 * torch.randn(400, 3)).argmax(1)
    network = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    train(network, TensorDataset(inputs[:300], targets[:300]), epochs=20)
    torch.save((inputs[:300], targets[:300]), "train.pt")
    torch.save((inputs[300:], targets[300:]), "test.pt")
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    checkpoint = {
        "epoch": 20, "global_step": 200, "pytorch-lightning_version": "2.5.0", "loops": {},
        "callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "state_dict": weights,
    }  # fmt: skip
    torch.save(checkpoint, "last.ckpt")


FILES: dict[str, Callable[[], None]] = {
    "recipes/pictures.md": pictures,
    "recipes/augmentation.md": augmented_pictures,
    "recipes/huggingface.md": model_of_transformers,
    "recipes/graphs.md": graphs,
    "recipes/audio.md": sounds,
    "recipes/tables.md": table,
    "recipes/segmentation.md": masks,
    "recipes/labels.md": findings,
    "recipes/resolution.md": finer_pictures,
    "recipes/lightning.md": lightning_checkpoint,
}
