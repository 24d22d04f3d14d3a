"""The rows: networks of torchvision and timm, built with random weights and without downloads."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import timm
import torch
from case import NO_BATCH_NORM, Case, logits, normal, on_meta
from torch import Tensor, nn
from torchvision import models


def rows() -> Iterator[Case]:
    yield from torchvision_rows()
    yield from timm_rows()


# --- torchvision: all that it lists -------------------------------------------------------------

# By family, or by name where one of a family differs.
WITHOUT = {
    "alexnet", "convnext", "squeezenet", "swin_transformer", "vision_transformer", "video.mvit",
    "video.swin_transformer", "detection.ssd", "vgg11", "vgg13", "vgg16", "vgg19", "raft_small",
}  # fmt: skip
SHAPES = {
    "inception": (4, 3, 96, 96),
    "quantization.inception": (4, 3, 96, 96),
    "maxvit": (2, 3, 224, 224),
    "video.resnet": (2, 3, 8, 56, 56),
    "video.s3d": (2, 3, 16, 224, 224),
}
HUGE = "644 million weights: compared to 5e-4 in float32, not tried in float64"


def torchvision_rows() -> Iterator[Case]:
    for name in models.list_models():
        builder = models.get_model_builder(name)
        family = builder.__module__.removeprefix("torchvision.models.")
        if family in WITHOUT or name in WITHOUT:
            build = on_meta(partial(builder, weights=None, **_unweighted(family)))
            yield Case(
                "torchvision", family, name, build, normal(2, 3, 64, 64), None, NO_BATCH_NORM
            )
        else:
            yield _torchvision(name, family, partial(builder, weights=None, **_unweighted(family)))


def _unweighted(family: str) -> dict[str, Any]:
    return (
        {"weights_backbone": None} if family.split(".")[0] in ("detection", "segmentation") else {}
    )


def _torchvision(name: str, family: str, build: Callable[[], nn.Module]) -> Case:
    row = partial(Case, "torchvision", family, name)
    if family.startswith("segmentation"):
        return row(build, normal(4, 3, 64, 64), lambda output: output["out"])
    if family.startswith("optical_flow"):
        frames = normal(2, 2, 3, 128, 128)
        return row(build, lambda g: tuple(frames(g)), lambda flows: flows[-1])
    if family.startswith("detection"):
        size = 320 if "ssd" in name else 64
        return row(partial(build, **_eager(name)), normal(2, 3, size, size), boxes)
    huge = {"tolerance": 5e-4, "note": HUGE} if name == "regnet_y_128gf" else {}
    return row(build, normal(*SHAPES.get(family, (4, 3, 64, 64))), logits, **huge)


def _eager(name: str) -> dict[str, Any]:
    """Options of a detector that finds something though it is not trained, in small images."""
    sizes = {} if "ssd" in name else {"min_size": 64, "max_size": 64}
    if "rcnn" in name:
        return {**sizes, "num_classes": 3, "box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 5}
    return {**sizes, "score_thresh": 0.0}


def boxes(detections: list[dict[str, Tensor]]) -> Tensor:
    """The mean box and score of each image, which the order of near equals does not change."""
    return torch.stack(
        [torch.cat([each["boxes"].mean(0), each["scores"].mean()[None]]) for each in detections]
    )


# --- timm: the smallest network with batch norm of each module ----------------------------------

# By module: its name, and the height and width of the images.
TIMM = {
    "byoanet": ("halonet_h1", 256),
    "byobnet": ("test_byobnet", 64),
    "convmixer": ("convmixer_768_32", 64),
    "cpubone": ("cpubone_nano", 64),
    "cspnet": ("cs3darknet_focus_s", 64),
    "cspnext": ("cspnext_tiny", 64),
    "densenet": ("densenet121", 64),
    "dla": ("dla46x_c", 64),
    "dpn": ("dpn48b", 64),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientformer_v2": ("efficientformerv2_s0", 224),
    "efficientnet": ("test_efficientnet", 64),
    "efficientvim": ("efficientvim_m1", 64),
    "efficientvit_mit": ("efficientvit_b0", 64),
    "efficientvit_msra": ("efficientvit_m0", 224),
    "fasternet": ("fasternet_t0", 64),
    "fastvit": ("fastvit_t8", 64),
    "ghostnet": ("ghostnet_050", 64),
    "hardcorenas": ("hardcorenas_b", 64),
    "hgnet": ("hgnetv2_b0", 64),
    "hrnet": ("hrnet_w18_small", 64),
    "iformer": ("iformer_t", 64),
    "inception_next": ("inception_next_atto", 64),
    "inception_resnet_v2": ("inception_resnet_v2", 96),
    "inception_v3": ("inception_v3", 128),
    "inception_v4": ("inception_v4", 96),
    "lcnetv2": ("lcnetv2_small", 64),
    "levit": ("levit_128s", 224),
    "lowformer": ("lowformer_b0", 64),
    "maxxvit": ("test_coatnet", 160),
    "mobilenetv3": ("mobilenetv3_small_050", 64),
    "mobilevit": ("mobilevit_xxs", 64),
    "nasnet": ("nasnetalarge", 96),
    "nextvit": ("nextvit_small", 64),
    "pnasnet": ("pnasnet5large", 96),
    "regnet": ("regnetx_002", 64),
    "repghost": ("repghostnet_050", 64),
    "repvit": ("repvit_m1", 64),
    "res2net": ("res2next50", 64),
    "resnest": ("resnest14d", 64),
    "resnet": ("test_resnet", 64),
    "resnetv2": ("resnetv2_18", 64),
    "rexnet": ("rexnet_100", 64),
    "selecsls": ("selecsls42", 64),
    "senet": ("legacy_seresnet18", 64),
    "shvit": ("shvit_s1", 64),
    "sknet": ("skresnet18", 64),
    "starnet": ("starnet_s050", 64),
    "swiftformer": ("swiftformer_xs", 224),
    "tiny_vit": ("tiny_vit_5m_224", 64),
    "tresnet": ("tresnet_m", 64),
    "vgg": ("vgg11_bn", 224),
    "visformer": ("visformer_tiny", 224),
    "vision_transformer_hybrid": ("vit_small_resnet50d_s16_224", 224),
    "volo": ("volo_d1_224", 224),
    "vovnet": ("ese_vovnet19b_slim_dw", 64),
    "xception": ("legacy_xception", 96),
    "xception_aligned": ("xception41p", 64),
    "xcit": ("xcit_nano_12_p8_224", 224),
}
# Modules of which no network has batch norm.
TIMM_WITHOUT = {
    "beit", "cait", "coat", "convit", "convnext", "crossvit", "csatv2", "davit",
    "deepseek_vit", "deit", "edgenext", "eva", "focalnet", "gcvit", "gemma4_vit", "hiera",
    "hieradet_sam2", "mambaout", "metaformer", "mlp_mixer", "mobilenetv5", "mvitv2",
    "naflexvit", "nest", "nfnet", "pit", "pvt_v2", "qwen3_vit", "rdnet", "sequencer",
    "swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr", "tnt", "twins",
    "vision_transformer", "vision_transformer_relpos", "vision_transformer_sam", "vitamin",
}  # fmt: skip


def timm_rows() -> Iterator[Case]:
    if unknown := {*timm.list_modules()} - TIMM.keys() - TIMM_WITHOUT:
        raise ValueError(f"expected the modules of timm that are listed here, got {unknown} too")
    for family, (name, size) in TIMM.items():
        build = partial(timm.create_model, name, pretrained=False, num_classes=10)
        yield Case(
            "timm", family, name, build, normal(2 if size > 128 else 4, 3, size, size), logits
        )
