#!/usr/bin/env python3
"""Train the example's segmentation network, export it as ONNX and check the export.

    python train.py                   # about six minutes on a data centre GPU; writes model.onnx
    python train.py --seconds 20 --pool 100 --batch 8 --device cpu --out /tmp/tiny.onnx     # does it run?

The network is an encoder of MobileNetV3 blocks (inverted residuals with depthwise
convolutions, squeeze-excite and hard-swish) with a light U-Net decoder. A pool of
training images is drawn first and stays in the device's memory.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import evaluate
import make_dataset
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

# Encoder blocks: kernel, expanded channels, output channels, squeeze-excite, stride.
BLOCKS = (
    (3, 16, 16, False, 1),  # 1/2 of the image's resolution
    (3, 48, 24, False, 2),  # 1/4
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),  # 1/8
    (5, 120, 40, True, 1),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),  # 1/16
    (3, 200, 80, False, 1),
    (3, 400, 112, True, 1),
    (5, 480, 128, True, 2),  # 1/32
    (5, 576, 128, True, 1),
    (5, 576, 128, True, 1),
)
STEM_CHANNELS = 16
DECODER_CHANNELS = (96, 64, 40, 24)  # at 1/16, 1/8, 1/4 and 1/2
CROP = (160, 192)  # of a training image: learns as well and takes a third of the time


# ---------------------------------------------------------------------------- network


class HardSwish(nn.Module):
    """x * hardsigmoid(x), elementwise. Exported as these two operators, which every runtime has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape in, the same shape out."""
        # The fused kernel saves memory traffic in training but would become an opset 14 HardSwish.
        return F.hardswish(x) if self.training else x * F.hardsigmoid(x)


class ConvNorm(nn.Module):
    """Convolution, batch norm and, if `active`, hard-swish."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = HardSwish() if active else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return self.act(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Multiply the batch norm into the convolution, which then has a bias."""
        self.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channel means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] in, the same shape out."""
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """Expand channels, filter them depthwise, project back; add the input where shapes allow."""

    def __init__(self, inputs: int, kernel: int, hidden: int, outputs: int, excite: bool, stride: int) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, hidden) if hidden != inputs else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, groups=hidden)
        self.excite = SqueezeExcite(hidden) if excite else nn.Identity()
        self.project = ConvNorm(hidden, outputs, active=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class DecoderStage(nn.Module):
    """Double the resolution, join the encoder's features of that resolution, mix."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.join = ConvNorm(inputs + skip, outputs)
        self.depthwise = ConvNorm(outputs, outputs, 5, groups=outputs)
        self.pointwise = ConvNorm(outputs, outputs)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] and [N, skip, 2H, 2W] to [N, outputs, 2H, 2W]."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.pointwise(self.depthwise(self.join(torch.cat([x, skip], 1))))


class UltralightSegmenter(nn.Module):
    """Encoder of MobileNetV3 blocks, U-Net decoder, logits at full resolution."""

    def __init__(self, classes: int = len(make_dataset.CLASSES)) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels, skips = STEM_CHANNELS, []
        for kernel, hidden, outputs, excite, stride in BLOCKS:
            if stride == 2:
                skips.append(channels)
            self.encoder.append(InvertedResidual(channels, kernel, hidden, outputs, excite, stride))
            channels = outputs
        for skip, outputs in zip(reversed(skips), DECODER_CHANNELS):
            self.decoder.append(DecoderStage(channels, skip, outputs))
            channels = outputs
        self.head = nn.Conv2d(channels, classes, 1)
        # Only for training: heads on the coarse stages teach the deep layers what to look for.
        self.helpers = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in DECODER_CHANNELS[:-1])

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """RGB in 0..1, float32 [N, 3, H, W], to logits [N, classes, H, W]; H, W multiples of 32.

        While training, logits of lower resolution follow: 1/16, 1/8 and 1/4.
        """
        x, skips = self.stem(image), []
        for block in self.encoder:
            if block.depthwise.conv.stride[0] == 2:
                skips.append(x)
            x = block(x)
        stages = []
        for stage in self.decoder:
            x = stage(x, skips.pop())
            stages.append(x)
        logits = F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=False)
        if not self.training:
            return logits
        return [logits, *(helper(x) for helper, x in zip(self.helpers, stages))]


# --------------------------------------------------------------------------- training


def draw_pool(count: int, seed: int, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` training images: uint8 RGB [count, 3, 256, 320] and classes uint8 [count, 256, 320]."""
    images = torch.empty((count, 3, make_dataset.HEIGHT, make_dataset.WIDTH), dtype=torch.uint8)
    classes = torch.empty((count, make_dataset.HEIGHT, make_dataset.WIDTH), dtype=torch.uint8)
    with multiprocessing.get_context("spawn").Pool(workers, cv2.setNumThreads, (1,)) as pool:
        samples = pool.imap(functools.partial(make_dataset.training_sample, seed=seed), range(count), chunksize=16)
        for index, (image, mask) in enumerate(samples):
            images[index], classes[index] = torch.from_numpy(image), torch.from_numpy(mask)
    return images, classes


class Batches:
    """Endless random crops of the pool, turned and with permuted colours, on the device."""

    def __init__(self, images: torch.Tensor, classes: torch.Tensor, batch: int, seed: int, device: str) -> None:
        self.images, self.classes = images.to(device), classes.to(device)
        self.batch, self.rng = batch, np.random.default_rng(seed)

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images uint8 [batch, 3, h, w] and classes uint8 [batch, h, w], h and w multiples of 32."""
        rng, (height, width) = self.rng, CROP
        chosen = torch.from_numpy(rng.integers(0, len(self.images), self.batch)).to(self.images.device)
        top = int(rng.integers(0, make_dataset.HEIGHT - height + 1))
        left = int(rng.integers(0, make_dataset.WIDTH - width + 1))
        rows, columns = slice(top, top + height), slice(left, left + width)
        images = self.images[chosen][:, :, rows, columns]
        images, classes = images[:, rng.permutation(3).tolist()], self.classes[chosen][:, rows, columns]
        for axis in (-1, -2):
            if rng.random() < 0.5:
                images, classes = images.flip(axis), classes.flip(axis)
        return images, classes


def loss_of(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus one minus the soft Dice score, which follows the mIoU more closely.

    logits are [N, C, h, w], classes int64 [N, H, W] with H a multiple of h; returns a scalar.
    """
    step = classes.shape[1] // logits.shape[2]
    classes = classes[:, step // 2 :: step, step // 2 :: step]
    logits = logits.float()
    chance = logits.softmax(1)
    truth = F.one_hot(classes, logits.shape[1]).permute(0, 3, 1, 2).to(chance.dtype)
    overlap = (chance * truth).sum((0, 2, 3))
    dice = (2 * overlap + 1) / (chance.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)
    return F.cross_entropy(logits, classes) + 1 - dice.mean()


def train(args: argparse.Namespace) -> UltralightSegmenter:
    """Train with the command line's options; return the network in eval mode on the CPU."""
    torch.manual_seed(args.seed)
    start = time.perf_counter()
    batches = Batches(*draw_pool(args.pool, args.seed, args.workers), args.batch, args.seed, args.device)
    print(f"{args.pool} images drawn in {time.perf_counter() - start:.0f} s", flush=True)
    net = UltralightSegmenter().to(args.device, memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": args.decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.rate)
    start, losses, step = time.perf_counter(), [], 0
    while (spent := (time.perf_counter() - start) / args.seconds) < 1:
        rate = args.rate * min(spent / 0.05, 0.5 * (1 + math.cos(math.pi * spent)))  # warm up, then a cosine
        for group in optimiser.param_groups:
            group["lr"] = rate
        losses.append(learn(net, optimiser, *next(batches), args.device))
        step += 1
        if step % 500 == 0:
            mean, seconds = torch.stack(losses).mean().item(), time.perf_counter() - start
            print(f"step {step}  loss {mean:.4f}  {seconds:.0f} s", flush=True)
            losses.clear()
    print(f"{step} steps of {args.batch} crops", flush=True)
    return net.to("cpu", memory_format=torch.contiguous_format).eval()


def learn(
    net: UltralightSegmenter, optimiser: torch.optim.Optimizer, images: torch.Tensor, classes: torch.Tensor, device: str
) -> torch.Tensor:
    """One step on uint8 [N, 3, h, w] and uint8 [N, h, w]; return the loss (scalar)."""
    images = (images.float() / 255).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        outputs = net(images)
    losses = [loss_of(logits, classes.long()) for logits in outputs]
    optimiser.zero_grad(set_to_none=True)
    sum(losses).backward()
    optimiser.step()
    return losses[0].detach()


# ----------------------------------------------------------------------------- export


def export(net: UltralightSegmenter, path: Path) -> None:
    """Fold the batch norms and write the network as ONNX with a free batch size."""
    for module in net.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    # The exporter that follows the Python code names nodes after modules; newer ones, which
    # are the default where the argument exists, need extra packages and a newer opset.
    extra = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    torch.onnx.export(
        net,
        (torch.rand(1, 3, make_dataset.HEIGHT, make_dataset.WIDTH),),
        str(path),
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        **extra,
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)  # shape inference must succeed
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def check_export(net: UltralightSegmenter, predict: Callable[[np.ndarray], np.ndarray], data: Path) -> float:
    """Compare onnxruntime with torch on three test images; return the largest difference of logits."""
    pairs = evaluate.test_pairs(data, limit=3)
    batch = np.stack([image for image, _ in pairs])
    with torch.no_grad():
        expected = net(torch.from_numpy(batch)).numpy()
    error = float(np.abs(predict(batch) - expected).max())
    if error > 1e-3 * np.abs(expected).max():
        raise SystemExit(f"train.py: the exported model differs from the trained one by {error}")
    return error


def main() -> None:
    """Train, export, check, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("--data", type=Path, default=here, help="folder with test/ and test_masks/")
    parser.add_argument("--out", type=Path, default=here / "model.onnx", help="ONNX file to write")
    parser.add_argument("--seconds", type=float, default=300, help="training time; the learning rate follows it")
    parser.add_argument("--pool", type=int, default=20000, help="training images to draw")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--decay", type=float, default=0.02, help="weight decay of convolution weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True  # all batches have one size: let it find the fastest kernels
    net = train(args)
    export(net, args.out)
    predict = evaluate.predict_onnx(args.out)
    print(f"{args.out}: differs from torch by at most {check_export(net, predict, args.data):.2e}")
    print(evaluate.report(evaluate.evaluate(predict, args.data)))


if __name__ == "__main__":
    main()
