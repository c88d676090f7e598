"""What is known of each ONNX operator, in one table; an operator without a row has none of the traits.

The traits:
- weighted: a convolution or matrix product, which INT8 speeds up.
- recurrent: matrix products in each step of a sequence, which have no INT8 form here.
- quantizer: QuantizeLinear, DequantizeLinear.
- integer: a convolution or matrix product in INT8 by itself, without Q/DQ around it, as ONNX Runtime's tools make it.
- dynamic: the same, or what feeds it, with ranges that are found at run time.
- pointwise: computed value by value, so that TensorRT can fuse it into the layer before.
- no_larger: only moves values, or can only make them smaller: max |output| <= max |inputs|; where an attribute decides about it,
  nodes.is_no_larger knows.
- exact: hands on values as they are, or one of several; rounding before it or after it is the same.
- bounded: small results whatever it reads; of a Clip, nodes.is_bounded knows.
- random: another result each time, so never a constant.
- no_work: a GPU has no arithmetic for it; TensorRT's layers of these do not count as FP16 layers either (trt/network.py).
- same_scale: what it gives lies in the range of what it reads, so one INT8 scale serves both.
- own_scale: passes INT8 on, with a scale of its own.
- fused: computed by the kernel that also adds, in residual blocks.
- terms: sums, largest and smallest: every term has the scale of the result.
- spatial: its channels are axis 1.
- along: the place of the channels carries over from what it reads to what it gives.
- wide: computes squares or exponentials inside, which need more range than what it reads and gives.
- expands: makes large tensors of small ones; as constants they would swell a model.
"""

from __future__ import annotations

TABLE = {
    "Abs": "pointwise no_larger exact along",
    "Add": "pointwise terms along",
    "AveragePool": "no_larger own_scale spatial",
    "BatchNormalization": "spatial",
    "Bernoulli": "random",
    "Cast": "no_work",
    "Celu": "pointwise",
    "Clip": "pointwise exact bounded fused along",
    "Concat": "no_larger exact same_scale along",
    "ConstantOfShape": "expands",
    "Conv": "weighted spatial",
    "ConvInteger": "integer dynamic",
    "ConvTranspose": "weighted spatial",
    "Cos": "bounded",
    "DepthToSpace": "no_larger exact",
    "DequantizeLinear": "quantizer",
    "Div": "pointwise along",
    "Dropout": "no_larger exact along",
    "DynamicQuantizeLSTM": "dynamic",
    "DynamicQuantizeLinear": "dynamic",
    "DynamicQuantizeMatMul": "integer dynamic",
    "Elu": "pointwise",
    "Erf": "pointwise bounded",
    "Exp": "pointwise",
    "Expand": "no_larger exact expands",
    "Flatten": "no_larger exact no_work",
    "GRU": "recurrent",
    "Gather": "no_larger exact",
    "Gelu": "pointwise",
    "Gemm": "weighted",
    "GatherElements": "no_larger exact",
    "GatherND": "no_larger exact",
    "GlobalAveragePool": "no_larger own_scale spatial",
    "GlobalLpPool": "wide",
    "GlobalMaxPool": "no_larger exact spatial",
    "HardSigmoid": "pointwise bounded",
    "HardSwish": "pointwise",
    "Identity": "no_larger exact no_work along",
    "InstanceNormalization": "spatial",
    "LSTM": "recurrent",
    "LeakyRelu": "pointwise no_larger fused along",
    "Log": "pointwise",
    "LpNormalization": "wide",
    "LpPool": "wide",
    "MatMul": "weighted",
    "MatMulInteger": "integer dynamic",
    "MatMulIntegerToFloat": "integer dynamic",
    "Max": "pointwise terms along",
    "MaxPool": "no_larger exact same_scale spatial",
    "Mean": "terms along",
    "MeanVarianceNormalization": "wide",
    "Min": "pointwise terms along",
    "Mish": "pointwise",
    "Mul": "pointwise along",
    "Multinomial": "random",
    "Neg": "pointwise no_larger exact along",
    "PRelu": "pointwise along",
    "Pad": "along",
    "Pow": "pointwise",
    "QGemm": "integer",
    "QLinearConv": "integer",
    "QLinearMatMul": "integer",
    "QuantizeLinear": "quantizer",
    "RNN": "recurrent",
    "RandomNormal": "random",
    "RandomNormalLike": "random",
    "RandomUniform": "random",
    "RandomUniformLike": "random",
    "ReduceL2": "wide",
    "ReduceLogSum": "wide",
    "ReduceLogSumExp": "wide",
    "ReduceMax": "no_larger exact",
    "ReduceMin": "no_larger exact",
    "Relu": "pointwise no_larger exact fused along",
    "Reshape": "no_larger exact no_work",
    "Resize": "same_scale spatial",
    "Selu": "pointwise",
    "Shape": "no_work",
    "Sigmoid": "pointwise bounded",
    "Sign": "bounded",
    "Sin": "bounded",
    "Size": "no_work",
    "Slice": "no_larger exact along",
    "Softmax": "bounded",
    "Softplus": "pointwise",
    "Softsign": "pointwise bounded",
    "SpaceToDepth": "no_larger exact",
    "Split": "no_larger exact along",
    "Sqrt": "pointwise",
    "Squeeze": "no_larger exact no_work",
    "Sub": "pointwise terms along",
    "Sum": "terms along",
    "Swish": "pointwise",
    "Tanh": "pointwise bounded",
    "ThresholdedRelu": "pointwise",
    "Tile": "no_larger exact expands",
    "Transpose": "no_larger exact no_work",
    "Unsqueeze": "no_larger exact no_work",
    "Upsample": "spatial",
}


def having(trait: str) -> frozenset[str]:
    """The operators with this trait."""
    return frozenset(operator for operator, traits in TABLE.items() if trait in traits.split())


WEIGHTED = having("weighted")
RECURRENT = having("recurrent")
CONVOLUTIONS = having("spatial") & WEIGHTED
QUANTIZERS = having("quantizer")
INTEGER = having("integer")
DYNAMIC = having("dynamic")
POINTWISE = having("pointwise")
NO_LARGER = having("no_larger")
EXACT = having("exact")
MOVING = EXACT - POINTWISE  # of one scale and zero point: the same before rounding and after it
BOUNDED = having("bounded")
RANDOM = having("random")
NO_WORK = having("no_work")
SAME_SCALE = having("same_scale")
OWN_SCALE = having("own_scale")
FUSED_WITH_ADD = having("fused")
TERMS = having("terms")
SPATIAL = having("spatial")
ALONG = having("along")
WIDE = having("wide")
EXPANDING = having("expands")
