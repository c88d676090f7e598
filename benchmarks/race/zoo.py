"""Networks of torchvision and others in torch, exported with random weights of a fixed seed: speed does not depend on what they learned.

    python benchmarks/race/zoo.py NAME FOLDER      # FOLDER/model.onnx and FOLDER/calibration/*.npz

The only file here that imports torch, 1.13 or newer; torchvision is needed for those that are torchvision's.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np

# name -> (batch, height and width), or of bert (batch, tokens)
ZOO = {
    "mobilenet_v3_large": (32, 224),
    "deeplabv3_resnet50": (4, 512),
    "vit_b_16": (32, 224),
    "swin_t": (16, 224),
    "convnext_tiny": (32, 224),
    "yolo": (8, 640),
    "bert": (16, 128),
}
FILES = 2  # batches of data
PATCH = 16  # pixels: noise of single pixels is nothing that a camera gives
WORDS, POSITIONS, WIDTH, LAYERS, HEADS = 30522, 512, 768, 12, 12  # of BERT-base
STRIDES = (8, 16, 32)  # of the three levels of yolo


def write(name: str, folder: Path) -> None:
    """FOLDER/model.onnx (opset 17, fixed shapes) and FOLDER/calibration with FILES files of one batch each."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if name == "bert":
        feeds = [_tokens(index) for index in range(FILES)]
    else:
        feeds = [{"x": _images(index, *ZOO[name])} for index in range(FILES)]
    net = network(name).eval()
    examples = tuple(torch.from_numpy(array) for array in feeds[0].values())
    options = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    names = {"input_names": list(feeds[0]), "output_names": ["y"]}
    # with gradients, or torch 2 would export its attention as one operator of its own (aten::_native_multi_head_attention)
    torch.onnx.export(net, examples, str(folder / "model.onnx"), opset_version=17, **names, **options)
    (folder / "calibration").mkdir(exist_ok=True)
    for index, feed in enumerate(feeds):
        np.savez(folder / "calibration" / f"{index}.npz", **feed)


def _images(index: int, batch: int, size: int) -> np.ndarray:
    coarse = np.random.default_rng(index + 1).random((batch, 3, size // PATCH, size // PATCH), np.float32)
    return coarse.repeat(PATCH, axis=2).repeat(PATCH, axis=3)


def _tokens(index: int) -> dict[str, np.ndarray]:
    """Sentences of different lengths, padded."""
    random, (batch, tokens) = np.random.default_rng(index + 1), ZOO["bert"]
    real = np.arange(tokens) < random.integers(tokens // 2, tokens + 1, (batch, 1))
    second = np.arange(tokens) >= tokens // 2
    words = np.where(real, random.integers(1000, WORDS, (batch, tokens)), 0)
    return {
        "input_ids": words.astype(np.int64),
        "attention_mask": real.astype(np.int64),
        "token_type_ids": (real & second).astype(np.int64),
    }


def network(name: str):
    """A torch.nn.Module with random weights, whose outputs are one tensor and depend on the input."""
    import torch

    if name == "bert":
        return _bert()
    if name == "yolo":
        net = _yolo()
    else:
        net = _of_torchvision(name)
    for module in net.modules():  # statistics as of a trained network, so that values neither fade nor grow
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    for weight in net.parameters():  # a head of zeros would make every output constant
        if weight.dim() == 2 and not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return net


def _of_torchvision(name: str):
    import torch
    import torchvision

    if name != "deeplabv3_resnet50":
        return getattr(torchvision.models, name)(weights=None)

    class Main(torch.nn.Module):
        """The output "out" alone."""

        def __init__(self) -> None:
            super().__init__()
            self.net = torchvision.models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None)

        def forward(self, x):
            return self.net(x)["out"]

    return Main()


def _bert():
    """BERT-base (Devlin et al., 2019) without pooling: the graph that transformers' own "eager" attention gives, whatever its version."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)

        def forward(self, x, mask):
            batch, tokens, _ = x.shape
            heads = [part(x).view(batch, tokens, HEADS, WIDTH // HEADS).transpose(1, 2) for part in (self.query, self.key, self.value)]
            scores = torch.matmul(heads[0], heads[1].transpose(2, 3)) * (WIDTH // HEADS) ** -0.5 + mask
            mixed = torch.matmul(scores.softmax(-1), heads[2]).transpose(1, 2).reshape(batch, tokens, WIDTH)
            x = self.norm1(self.out(mixed) + x)
            return self.norm2(self.narrow(nn.functional.gelu(self.wide(x))) + x)

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places, self.types = (nn.Embedding(size, WIDTH) for size in (WORDS, POSITIONS, 2))
            self.norm, self.layers = nn.LayerNorm(WIDTH, eps=1e-12), nn.ModuleList(Layer() for _ in range(LAYERS))
            for weight in self.parameters():
                if weight.dim() == 2:
                    nn.init.normal_(weight, std=0.02)

        def forward(self, input_ids, attention_mask, token_type_ids):
            places = self.places(torch.arange(input_ids.shape[1]).unsqueeze(0))
            x = self.norm(self.words(input_ids) + self.types(token_type_ids) + places)
            mask = attention_mask[:, None, None, :].to(x.dtype)
            mask = torch.zeros_like(mask).masked_fill(mask == 0, torch.finfo(x.dtype).min)
            for layer in self.layers:
                x = layer(x, mask)
            return x

    return Bert()


def _yolo():
    """A detector like YOLOv8-s: split and concatenated residual blocks, SiLU, pooling pyramid, three levels, softmax over distances."""
    import torch
    from torch import nn

    def conv(inside: int, outside: int, kernel: int = 1, stride: int = 1):
        return nn.Sequential(nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outside), nn.SiLU())

    class Bottleneck(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.second = conv(width, width, 3), conv(width, width, 3)

        def forward(self, x):
            return x + self.second(self.first(x))

    class Block(nn.Module):
        def __init__(self, inside: int, outside: int, depth: int) -> None:
            super().__init__()
            self.enter, self.leave = conv(inside, outside), conv(outside + depth * (outside // 2), outside)
            self.inner = nn.ModuleList(Bottleneck(outside // 2) for _ in range(depth))

        def forward(self, x):
            parts = list(self.enter(x).chunk(2, 1))
            for inner in self.inner:
                parts.append(inner(parts[-1]))
            return self.leave(torch.cat(parts, 1))

    class Yolo(nn.Module):
        def __init__(self, widths=(32, 64, 128, 256, 512)) -> None:
            super().__init__()
            self.stem = conv(3, widths[0], 3, 2)
            self.down = nn.ModuleList(
                nn.Sequential(conv(inside, outside, 3, 2), Block(outside, outside, 2)) for inside, outside in zip(widths, widths[1:])
            )
            self.pool, self.before, self.behind = nn.MaxPool2d(5, 1, 2), conv(widths[4], 256), conv(4 * 256, widths[4])
            self.larger = nn.Upsample(scale_factor=2)
            self.mixed1, self.mixed2 = Block(widths[4] + widths[3], 256, 1), Block(256 + widths[2], 128, 1)
            self.boxes = nn.ModuleList(nn.Sequential(conv(width, 64, 3), nn.Conv2d(64, 64, 1)) for width in (128, 256, 512))
            self.classes = nn.ModuleList(nn.Sequential(conv(width, 80, 3), nn.Conv2d(80, 80, 1)) for width in (128, 256, 512))
            self.register_buffer("bins", torch.arange(16.0).reshape(1, 1, 16, 1))

        def forward(self, x):
            x, levels = self.stem(x), []
            for down in self.down:
                x = down(x)
                levels.append(x)
            pooled = [self.before(levels[3])]
            for _ in range(3):
                pooled.append(self.pool(pooled[-1]))
            coarse = self.behind(torch.cat(pooled, 1))
            middle = self.mixed1(torch.cat([self.larger(coarse), levels[2]], 1))
            fine = self.mixed2(torch.cat([self.larger(middle), levels[1]], 1))
            found = []
            for boxes, classes, stride, level in zip(self.boxes, self.classes, STRIDES, (fine, middle, coarse)):
                distances, scores = boxes(level).flatten(2), classes(level).flatten(2).sigmoid()
                batch, _, places = distances.shape
                distances = (distances.reshape(batch, 4, 16, places).softmax(2) * self.bins).sum(2) * stride
                found.append(torch.cat([distances, scores], 1))
            return torch.cat(found, 2)

    return Yolo()


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
