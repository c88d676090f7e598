"""Run by a Python that has torch: writes one architecture with random weights as ONNX, or lists those that can be written here.

    python export_torch.py list
    python export_torch.py NAME FOLDER      writes FOLDER/model.onnx, and FOLDER/about.json with the shapes of its inputs

Weights are random, with a fixed seed, and batch normalisation has run over random data, so that activations are as large as in a
trained network. Architectures that are large are written with fewer layers: what matters is their operators.
"""

import inspect
import json
import sys
from pathlib import Path

import torch

OPSET = 16
VISION = {  # name -> (kind, size of the image)
    "resnet18": ("residual network", 96),
    "mobilenet_v2": ("mobile network", 96),
    "mobilenet_v3_small": ("mobile network", 96),
    "efficientnet_b0": ("mobile network", 96),
    "shufflenet_v2_x0_5": ("mobile network", 96),
    "mnasnet0_5": ("mobile network", 96),
    "regnet_y_400mf": ("residual network", 96),
    "densenet121": ("dense network", 96),
    "googlenet": ("inception", 96),
    "convnext_tiny": ("ConvNeXt", 96),
    "vit_b_16": ("vision transformer", 224),
    "swin_t": ("Swin transformer", 224),
}
SEGMENTATION = {"lraspp_mobilenet_v3_large": 128, "deeplabv3_mobilenet_v3_large": 128, "fcn_resnet50": 96}
SMALL = {"num_hidden_layers": 3, "hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 192}
TEXT = {  # name -> (kind, class, configuration)
    "bert": ("text encoder", "BertModel", SMALL),
    "roberta": ("text encoder", "RobertaForSequenceClassification", SMALL),
    "distilbert": ("text encoder", "DistilBertModel", {"n_layers": 3, "dim": 96, "n_heads": 4, "hidden_dim": 192}),
    "albert": ("text encoder", "AlbertModel", {**SMALL, "embedding_size": 48}),
    "electra": ("text encoder", "ElectraModel", {**SMALL, "embedding_size": 48}),
    "mpnet": ("text encoder", "MPNetModel", SMALL),
    "gpt2": ("text decoder", "GPT2LMHeadModel", {"n_layer": 3, "n_embd": 96, "n_head": 4, "vocab_size": 2000, "use_cache": False}),
    "opt": ("text decoder", "OPTForCausalLM", {**SMALL, "ffn_dim": 192, "word_embed_proj_dim": 96, "vocab_size": 2000, "use_cache": False}),
    "t5_encoder": ("text encoder", "T5EncoderModel", {"num_layers": 3, "d_model": 96, "d_ff": 192, "num_heads": 4, "d_kv": 24}),
}
IMAGES = {  # transformers that take pixel_values
    "vit": ("vision transformer", "ViTForImageClassification", {**SMALL, "image_size": 64, "patch_size": 8}, 64),
    "deit": ("vision transformer", "DeiTModel", {**SMALL, "image_size": 64, "patch_size": 8}, 64),
    "segformer": ("segmentation", "SegformerForSemanticSegmentation", {}, 64),
    "mobilevit": ("mobile network", "MobileViTForImageClassification", {"image_size": 64}, 64),
    "clip_vision": ("vision transformer", "CLIPVisionModel", {**SMALL, "image_size": 64, "patch_size": 8}, 64),
}
AUDIO = {"wav2vec2": ("speech", "Wav2Vec2ForCTC", {**SMALL}), "hubert": ("speech", "HubertModel", {**SMALL})}
RECURRENT = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class Named(torch.nn.Module):
    """Only tensors come out, in a fixed order."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values):
        found = self.model(**dict(zip(self.names, values))) if self.names else self.model(*values)
        if isinstance(found, dict):
            found = found.get("out", next(iter(found.values())))
        return found[0] if isinstance(found, tuple | list) else found


def kinds():
    """Name -> kind of everything whose library is there."""
    found = dict.fromkeys(RECURRENT, "recurrent network")
    try:
        import torchvision  # noqa: F401

        found |= {name: kind for name, (kind, _) in VISION.items()} | dict.fromkeys(SEGMENTATION, "segmentation")
    except ImportError:
        pass
    try:
        import transformers  # noqa: F401

        found |= {name: entry[0] for table in (TEXT, IMAGES, AUDIO) for name, entry in table.items()}
    except ImportError:
        pass
    return found


def make(name):
    """(model, inputs, free dimensions of each input, whether images go in)"""
    if name in RECURRENT:
        net = RECURRENT[name](24, 32, num_layers=2, bidirectional=True, batch_first=True)
        return Named(net, ()), {"x": torch.randn(1, 20, 24)}, {0: "batch"}
    if name in VISION or name in SEGMENTATION:
        return _vision(name)
    import transformers

    if name in TEXT:
        _, cls, settings = TEXT[name]
        model = _transformer(transformers, cls, settings)
        ids = torch.randint(5, 1000, (1, 24))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return Named(model, tuple(inputs)), inputs, {0: "batch", 1: "sequence"}
    if name in IMAGES:
        _, cls, settings, size = IMAGES[name]
        inputs = {"pixel_values": torch.randn(1, 3, size, size)}
        return Named(_transformer(transformers, cls, settings), tuple(inputs)), inputs, {0: "batch"}
    _, cls, settings = AUDIO[name]
    inputs = {"input_values": torch.randn(1, 8000)}
    return Named(_transformer(transformers, cls, settings), tuple(inputs)), inputs, {0: "batch"}


def _vision(name):
    import torchvision

    if name in SEGMENTATION:
        model, size = torchvision.models.segmentation.__dict__[name](weights=None, weights_backbone=None), SEGMENTATION[name]
    else:
        extra = {"init_weights": False} if name == "googlenet" else {}
        model, size = torchvision.models.__dict__[name](weights=None, **extra), VISION[name][1]
    for layers in (getattr(getattr(model, "encoder", None), "layers", None),):
        if layers is not None:  # the depth of vit_b_16 adds seconds and no operator
            del layers[2:]
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean over all runs: some networks would keep 99 % of what they start with, and fade away
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(4, 3, size, size))
    return Named(model, ()), {"images": torch.randn(1, 3, size, size)}, {0: "batch"}


def _transformer(transformers, cls, settings):
    kind = getattr(transformers, cls)
    return kind(kind.config_class(**settings))


def main(name, folder):
    torch.manual_seed(0)
    model, inputs, free = make(name)
    model.eval()
    axes = {key: {axis: called for axis, called in free.items() if axis < value.dim()} for key, value in inputs.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # since torch 2.9 another exporter is the default, which takes no dynamic_axes
    options = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        str(folder / "model.onnx"),
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=["out"],
        dynamic_axes=axes | {"out": {0: "batch"}},
        **options,
    )
    about = {
        key: {"shape": list(value.shape), "whole": not value.is_floating_point(), "ones": key.endswith("mask")}
        for key, value in inputs.items()
    }
    (folder / "about.json").write_text(json.dumps(about))


if __name__ == "__main__":
    if sys.argv[1] == "list":
        print(json.dumps({"torch": torch.__version__, "kinds": kinds()}))
    else:
        main(*sys.argv[1:])
