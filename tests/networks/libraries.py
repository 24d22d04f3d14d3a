"""The rows: networks of libraries for one kind of task, built without downloads."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import transformers
from case import NO_BATCH_NORM, Case, logits, normal
from lightning import LightningModule
from monai.networks import nets
from torch import Tensor, nn
from torchvision import models
from ultralytics.nn.tasks import ClassificationModel, DetectionModel, SegmentationModel


def rows() -> Iterator[Case]:
    yield from segmentation_rows()
    yield from transformers_rows()
    yield from monai_rows()
    yield from ultralytics_rows()
    yield from lightning_rows()


# --- segmentation_models_pytorch ----------------------------------------------------------------


def segmentation_rows() -> Iterator[Case]:
    for name in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3",
                 "DeepLabV3Plus", "PAN", "UPerNet", "Segformer"):  # fmt: skip
        build = partial(getattr(smp, name), "resnet18", encoder_weights=None, classes=3)
        size = 128 if name == "PAN" else 64
        yield Case("segmentation-models-pytorch", "resnet18 encoder", name, build,
                   normal(4, 3, size, size))  # fmt: skip


# --- transformers: from configurations ----------------------------------------------------------

TINY = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 3}
TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNetForImageClassification": (
        lambda: transformers.ResNetForImageClassification(
            transformers.ResNetConfig(**TINY, layer_type="basic")), 64),
    "RegNetForImageClassification": (
        lambda: transformers.RegNetForImageClassification(
            transformers.RegNetConfig(**TINY, groups_width=8)), 64),
    "MobileNetV1ForImageClassification": (
        lambda: transformers.MobileNetV1ForImageClassification(
            transformers.MobileNetV1Config(depth_multiplier=0.25, num_labels=3)), 64),
    "MobileNetV2ForImageClassification": (
        lambda: transformers.MobileNetV2ForImageClassification(
            transformers.MobileNetV2Config(depth_multiplier=0.35, num_labels=3)), 64),
    "EfficientNetForImageClassification": (
        lambda: transformers.EfficientNetForImageClassification(
            transformers.EfficientNetConfig(
                width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320, num_labels=3)), 64),
    "LevitForImageClassification": (
        lambda: transformers.LevitForImageClassification(
            transformers.LevitConfig(
                image_size=64, hidden_sizes=[16, 32, 48], num_attention_heads=[2, 2, 2],
                depths=[1, 1, 1], key_dim=[8, 8, 8], num_labels=3)), 64),
    "CvtForImageClassification": (
        lambda: transformers.CvtForImageClassification(
            transformers.CvtConfig(
                embed_dim=[8, 16, 24], num_heads=[1, 2, 3], depth=[1, 2, 3], num_labels=3)), 64),
    "SegformerForSemanticSegmentation": (
        lambda: transformers.SegformerForSemanticSegmentation(
            transformers.SegformerConfig(
                hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=16,
                num_labels=3)), 64),
    "DetrForObjectDetection": (lambda: transformers.DetrForObjectDetection(_detr()), 64),
}  # fmt: skip


def _detr() -> transformers.DetrConfig:
    """A small DETR, whose backbone has frozen batch norm."""
    backbone = transformers.ResNetConfig(**TINY, layer_type="basic", out_features=["stage2"])
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 1)
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    wide = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_model"), 16)
    return transformers.DetrConfig(
        backbone_config=backbone, num_queries=5, num_labels=3, **sizes, **heads, **wide
    )


def transformers_rows() -> Iterator[Case]:
    for name, (build, size) in TRANSFORMERS.items():
        yield Case("transformers", "from a configuration", name, build, normal(4, 3, size, size),
                   lambda answer: answer.logits)  # fmt: skip
    series = transformers.PatchTSTConfig(
        num_input_channels=2, context_length=32, patch_length=8, patch_stride=8, d_model=16,
        num_attention_heads=2, num_hidden_layers=2, ffn_dim=16, num_targets=3,
    )  # fmt: skip
    yield Case("transformers", "from a configuration", "PatchTSTForClassification",
               lambda: transformers.PatchTSTForClassification(series), normal(4, 32, 2),
               lambda answer: answer.prediction_logits)  # fmt: skip


# --- monai ---------------------------------------------------------------------------------------

CUBE = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
MONAI: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "UNet, 3-D, norm=BATCH": (
        lambda: nets.UNet(**CUBE, channels=(4, 8, 16), strides=(2, 2), num_res_units=1,
                          norm="BATCH"), (2, 1, 16, 16, 16)),
    "UNet, 2-D, norm=BATCH, dropout": (
        lambda: nets.UNet(**{**CUBE, "spatial_dims": 2}, channels=(4, 8, 16), strides=(2, 2),
                          norm="BATCH", dropout=0.2), (4, 1, 32, 32)),
    "BasicUNet, 3-D, norm=batch": (
        lambda: nets.BasicUNet(**CUBE, features=(4, 4, 8, 8, 8, 4), norm="batch"),
        (2, 1, 32, 32, 32)),
    "DynUNet, 3-D, norm=batch": (
        lambda: nets.DynUNet(**CUBE, kernel_size=(3, 3, 3), strides=(1, 2, 2),
                             upsample_kernel_size=(2, 2), filters=(4, 8, 8), norm_name="batch"),
        (2, 1, 16, 16, 16)),
    "SegResNet, 3-D, norm=batch": (
        lambda: nets.SegResNet(**CUBE, init_filters=8, norm="batch"), (2, 1, 16, 16, 16)),
    "DenseNet121, 3-D": (lambda: nets.DenseNet121(**CUBE), (4, 1, 64, 64, 64)),
    "resnet10, 3-D": (
        lambda: nets.resnet10(spatial_dims=3, n_input_channels=1, num_classes=2),
        (2, 1, 32, 32, 32)),
    "EfficientNetBN b0, 2-D": (
        lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=1,
                                    num_classes=2), (4, 1, 64, 64)),
    "VNet, 3-D": (
        lambda: nets.VNet(in_channels=1, out_channels=2), (1, 1, 32, 32, 32)),
}  # fmt: skip


def monai_rows() -> Iterator[Case]:
    for name, (build, shape) in MONAI.items():
        yield Case("monai", "networks.nets", name, build, normal(*shape), logits)
    yield Case("monai", "networks.nets", "UNet, 3-D, norm=INSTANCE",
               lambda: nets.UNet(**CUBE, channels=(4, 8), strides=(2,)),
               normal(2, 1, 16, 16, 16), None, NO_BATCH_NORM)  # fmt: skip


# --- ultralytics: from their descriptions in yaml ------------------------------------------------


def _fused(build: Callable[[], nn.Module]) -> nn.Module:
    return build().eval().fuse(verbose=False)


def ultralytics_rows() -> Iterator[Case]:
    for name, kind in (("yolo11n.yaml", DetectionModel), ("yolov8n.yaml", DetectionModel),
                       ("yolo11n-seg.yaml", SegmentationModel),
                       ("yolo11n-cls.yaml", ClassificationModel)):  # fmt: skip
        build = partial(kind, name, verbose=False)
        yield Case("ultralytics", "from yaml", name, build, normal(4, 3, 64, 64), first)
        yield Case("ultralytics", "after .fuse()", name, partial(_fused, build),
                   normal(4, 3, 64, 64), first, NO_BATCH_NORM)  # fmt: skip


def first(answer: Any) -> Tensor:
    """The first tensor in nested answers."""
    while not isinstance(answer, Tensor):
        answer = answer[0]
    return answer


# --- lightning ----------------------------------------------------------------------------------


class Classifier(LightningModule):
    """A network in a module that knows how to train it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = models.resnet18(num_classes=3)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def lightning_rows() -> Iterator[Case]:
    yield Case("lightning", "LightningModule", "around a network", Classifier,
               normal(4, 3, 64, 64),
               note="the bank's names start with that of the attribute")  # fmt: skip
