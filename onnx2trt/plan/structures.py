"""The structures that INT8 can have in an engine of TensorRT 8.6 to 10; which of them is fastest, only measuring tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Structure:
    """One way to write the same INT8 layers, with the same scales and weights, down for TensorRT."""

    name: str
    calibrator: bool  # by TensorRT's calibrator, which is given our scales; else by Q/DQ
    bound: bool  # every layer to the type that was chosen for it; else TensorRT may compute INT8 layers in FP16, and others in INT8
    by_rule: bool  # layers that INT8 seldom speeds up (depthwise, or of hardly any work) stay FP16 without being measured
    attention: bool = False  # both products of attention are INT8, too; only where the network has such attention
    own_weights: frozenset[str] = frozenset()  # nodes whose weights are those of the model: TensorRT does not compute them in INT8

    @property
    def for_transformers(self) -> bool:
        """Whether TensorRT makes INT8 of a network that is attention and matrix products, in this structure, and gains by it.

        Measured on 10.6, of raw FP16: ViT-B/16 0.65 by Q/DQ and 1.42 bound, BERT-base 0.87 and 2.6; of both, of Swin-T and of ConvNeXt-T
        it computes nothing in INT8 by the calibrator alone, and takes minutes to find that out.
        """
        return not self.calibrator

    @property
    def takes_fp16(self) -> bool:
        """Whether TensorRT computes in FP16 what it finds slower in INT8.

        Without more of its layers in INT8 such an engine was slower on 10.6 every time: ms of MobileNetV3-L 0.688, 0.791 without; of a UNet
        0.944, 0.977; of DeepLabV3 1.708, 1.945; of ShuffleNetV2 0.770, 0.847.
        """
        return self.calibrator and not self.bound


FREE = Structure("calibrator", calibrator=True, bound=False, by_rule=False)
BOUND = Structure("bound calibrator", calibrator=True, bound=True, by_rule=True)
QDQ = Structure("Q/DQ", calibrator=False, bound=False, by_rule=False)
ATTENTION = Structure("Q/DQ with attention", calibrator=False, bound=False, by_rule=False, attention=True)


def unmeasured(calibrator: bool, bound: bool) -> Structure:
    """What is built where no engine can be timed against another: a rule, no measurement."""
    if calibrator:
        return Structure("calibrator", calibrator=True, bound=bound, by_rule=True)
    return Structure("Q/DQ", calibrator=False, bound=False, by_rule=True)


def candidates(quantization: str, bind: bool) -> tuple[Structure, ...]:
    """Those to measure, in order; that with attention is left out where a network has none that INT8 can compute.

    Args:
        quantization: of --quantization.
        bind: layers may be bound to their types.
    """
    found = {"auto": (FREE, QDQ, ATTENTION, BOUND), "calibrator": (FREE, BOUND), "qdq": (QDQ, ATTENTION)}[quantization]
    return tuple(structure for structure in found if bind or not structure.bound)
