"""Quantized files of other tools, written as TensorRT takes them: Q/DQ pairs of INT8 with zero point 0, and nothing else in integers.

An integer q stands for (q - zero) * scale. Of UINT8, or with a zero point, the same values are reached by a shift: with
k = zero - 128 for UINT8, k = zero for INT8,

    Q(x, scale, zero) as INT8  =  Q(x + k * scale, scale, 0)        clip(round(x / scale + k), -128, 127)
    DQ                         =  DQ(.., scale, 0) - k * scale

which is the same but for ties of rounding. rewrite/shifts.py then takes the shift into the bias of a convolution or matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, reads, rename_reads
from onnx2trt.rewrite.qlinear import Form, Operand, form_of
from onnx2trt.rewrite.quantized_reads import MOVING, bias_only, moves
from onnx2trt.rewrite.steps import BITS_8, BITS_16, Steps, aligned

QUANTIZER_DOMAINS = (*STANDARD_DOMAINS, "com.microsoft")


@dataclass(frozen=True)
class Signed:
    """A graph with symmetric INT8 Q/DQ, and what that takes."""

    graph: Graph
    shifted: int  # activations that are shifted before they are rounded, and back
    unfit: int  # constants whose integers do not fit into INT8 without their zero point: these are FP32


def signed(graph: Graph) -> Signed:
    """The graph with INT8 Q/DQ in the place of quantized operators, UINT8, INT16, INT32 and zero points.

    Constants whose integers do not fit into INT8 without their zero point become FP32; so do INT32 constants (biases). 16-bit pairs only
    clip. What has scales that are computed at run time stays as it is.

    Args:
        graph: not changed; every constant a weight, nodes in order.

    Returns:
        With a new graph; its tensors keep their names, where they are not integers.
    """
    return _Writer(graph).run()


class _Writer:
    def __init__(self, graph: Graph):
        self._source = graph
        self._result = graph.copy()
        self._nodes: list[onnx.NodeProto] = []
        self._kept: dict[str, tuple[str, Steps]] = {}  # quantized tensor -> (floating-point tensor to be rounded, its steps)
        self._rounded: dict[tuple, str] = {}  # (floating-point tensor or constant, steps) -> its rounded values
        self._renamed: dict[str, str] = {}  # output of a DequantizeLinear that is gone -> who has its values
        self._integers: dict[str, str] = {}
        self._bias_only = bias_only(graph)
        self._producers = graph.producers()
        self._shifted = self._unfit = 0

    def run(self) -> Signed:
        for node in list(self._result.nodes):
            for name in [name for name in dict.fromkeys(reads(node)) if name in self._renamed]:
                rename_reads(node, name, self._renamed[name])
            if not self._rewrite(node):
                for name in [name for name in dict.fromkeys(reads(node)) if name in self._kept]:
                    rename_reads(node, name, self._as_integers(name))
                self._nodes.append(node)
        for name in self._result.output_names:
            if name in self._kept:
                self._add("Identity", [self._as_integers(name)], name)
            elif name in self._renamed:
                self._add("Identity", [self._renamed[name]], name)
        self._result.replace_nodes(self._nodes)
        self._result.prune()
        return Signed(self._result, self._shifted, self._unfit)

    def _rewrite(self, node: onnx.NodeProto) -> bool:
        """Whether the node is gone, and what takes its place has been added."""
        if node.op_type == "QuantizeLinear" and node.domain in QUANTIZER_DOMAINS:
            return self._quantize(node)
        if node.op_type == "DequantizeLinear" and node.domain in QUANTIZER_DOMAINS:
            return self._dequantize(node)
        if node.input and node.input[0] in self._kept and moves(node):
            return self._move(node)
        form = form_of(node)
        return form is not None and self._compute(node, form)

    # ---- the nodes

    def _quantize(self, node: onnx.NodeProto) -> bool:
        steps = self._steps(node, "uint8")
        array = self._result.weights.get(node.input[0])
        if steps is None or not steps.writable and array is None:
            return False
        if array is not None and not steps.plain:
            self._result.weights[node.output[0]] = steps.integers(array)
        else:
            self._kept[node.output[0]] = (node.input[0], steps)
        return True

    def _dequantize(self, node: onnx.NodeProto) -> bool:
        source = node.input[0]
        array = self._result.weights.get(source)
        steps = self._steps(node, self._kept[source][1].dtype if source in self._kept else "" if array is None else array.dtype.name)
        if steps is None:
            return False
        real = node.output[0] in self._bias_only and array is not None
        found = self._constant(source, steps, in_float=real) if array is not None else self._values(source, steps)
        if found is None:
            return False
        self._renamed[node.output[0]] = found
        return True

    def _move(self, node: onnx.NodeProto) -> bool:
        """Move the values before they are rounded, which is the same; each reader rounds them."""
        data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        if any(name not in self._kept for name in data) or len(node.output) > 1 and node.op_type != "Split":
            return False
        steps = self._kept[data[0]][1]
        if steps.scale.size > 1 or any(self._kept[name][1].key != steps.key for name in data):
            return False
        if node.op_type == "Pad" and not self._pad_with_values(node, steps):
            return False
        for index in range(len(data)):
            node.input[index] = self._kept[node.input[index]][0]
        for index, name in enumerate(node.output):
            moved = self._result.unique(f"{name}__values")
            self._kept[name] = (moved, steps)
            node.output[index] = moved
        self._nodes.append(node)
        return True

    def _pad_with_values(self, node: onnx.NodeProto, steps: Steps) -> bool:
        """Make a Pad of integers pad with what its integer stands for; False where that is no constant."""
        name = node.input[2] if len(node.input) > 2 else ""
        padding = self._result.weights.get(name) if name else np.array(0, steps.dtype)
        if padding is None or len(node.input) < 2:
            return False
        node.input[2:3] = [self._weight(node.output[0], "padding", steps.values(padding.reshape(())))]
        return True

    def _compute(self, node: onnx.NodeProto, form: Form) -> bool:
        if not all(isinstance(operand, str) or self._known(operand) for operand in form.operands):
            return False
        made = Operand("", form.scale, form.zero)
        steps = self._steps_of(made, "uint8") if form.scale else None
        if form.scale and (steps is None or not steps.writable):
            return False
        inputs = [operand if isinstance(operand, str) else self._operand(operand) for operand in form.operands]
        if form.bias:
            inputs.append(self._bias(form))
        name = node.output[0]
        value = self._result.unique(f"{name}__values") if steps else name
        self._add(form.operator, inputs, value, node.name, **form.attributes)
        if steps:
            self._kept[name] = (value, steps)
        return True

    # ---- what they read

    def _known(self, operand: Operand) -> bool:
        array = self._result.weights.get(operand.tensor)
        if operand.tensor in self._kept or array is not None:
            return self._steps_of(operand, "uint8" if array is None else array.dtype.name, array) is not None
        zero = self._result.weights.get(operand.zero)
        return zero is not None and self._steps_of(operand, zero.dtype.name) is not None

    def _operand(self, operand: Operand) -> str:
        array = self._result.weights.get(operand.tensor)
        dtype = self._result.weights[operand.zero].dtype.name if operand.zero else "uint8"
        steps = self._steps_of(operand, dtype if array is None else array.dtype.name, array)
        if array is None:
            return self._values(operand.tensor, steps)
        return self._constant(operand.tensor, steps)

    def _bias(self, form: Form) -> str:
        """INT32 as FP32; its scale is the product of those of the two operands."""
        first, second = (self._result.weights[operand.scale].reshape(-1) for operand in form.operands[:2])
        return self._constant(form.bias, Steps((first * second).astype(np.float32), np.int64(0), "int32", 0), in_float=True)

    def _values(self, name: str, steps: Steps) -> str | None:
        """Floating-point values of quantized integers that the model computes or reads."""
        if name not in self._kept:
            return self._moved_constant(name, steps) or self._cast_values(name, steps)
        source, own = self._kept[name]
        found = self._round(source, own)
        if own.key == steps.key:
            return found
        if steps.scale.size > 1 or own.scale.size > 1:
            return None
        # read with other steps than it was written with
        factor = self._weight(found, "factor", steps.scale / own.scale)
        summand = self._weight(found, "summand", ((own.zero - steps.zero) * steps.scale).astype(np.float32))
        scaled = self._add("Mul", [found, factor], self._result.unique(f"{name}__scaled"))
        return self._add("Add", [scaled, summand], self._result.unique(f"{name}__shifted"))

    def _moved_constant(self, name: str, steps: Steps) -> str | None:
        """Rows of a quantized table, say: the table's values are moved instead of its integers."""
        node = self._producers.get(name)
        if node is None or node.op_type not in MOVING - {"Concat"} or len(node.output) > 1 or steps.scale.size > 1:
            return None
        if node.input[0] not in self._result.weights:
            return None
        values = self._constant(node.input[0], steps)
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        return self._add(node.op_type, [values, *node.input[1:]], self._result.unique(f"{name}__values"), **attributes)

    def _cast_values(self, name: str, steps: Steps) -> str | None:
        """(q - zero) * scale by arithmetic, where TensorRT has no DequantizeLinear for it."""
        if steps.scale.size > 1 or steps.plain:
            return None
        cast = self._add("Cast", [name], self._result.unique(f"{name}__float"), to=onnx.TensorProto.FLOAT)
        zero = self._weight(name, "zero", steps.zero.astype(np.float32))
        whole = self._add("Sub", [cast, zero], self._result.unique(f"{name}__whole"))
        return self._add("Mul", [whole, self._weight(name, "scale", steps.scale)], self._result.unique(f"{name}__values"))

    def _constant(self, name: str, steps: Steps, in_float: bool = False) -> str:
        key = (name, steps.key, in_float)
        if key in self._rounded:
            return self._rounded[key]
        integers = self._result.weights[name]
        whole = integers.astype(np.int64) - aligned(steps.zero, steps.axis if steps.zero.size > 1 else None, integers.ndim)
        unfit = whole.min(initial=0) < -128 or whole.max(initial=0) > 127
        if in_float or steps.dtype not in BITS_8 or unfit:
            self._unfit += not in_float and steps.dtype in BITS_8
            found = self._weight(name, "values", steps.values(integers))
        else:
            own = name if steps.plain else self._weight(name, "int8", whole.astype(np.int8))
            found = self._dequantized(own, name, steps)
        self._rounded[key] = found
        return found

    def _dequantized(self, source: str, name: str, steps: Steps) -> str:
        return self._symmetric("DequantizeLinear", source, f"{name}__dequantized", steps)

    # ---- rounding

    def _round(self, source: str, steps: Steps) -> str:
        """`source` rounded to the steps."""
        key = (source, steps.key)
        if key not in self._rounded:
            self._rounded[key] = self._clipped(source, steps) if steps.dtype in BITS_16 else self._pair(source, steps)
        return self._rounded[key]

    def _pair(self, source: str, steps: Steps) -> str:
        shift = (steps.shift * steps.scale).astype(np.float32)
        shifted = source
        if shift.any():
            self._shifted += 1
            offset = self._weight(source, "shift", shift)
            shifted = self._add("Add", [source, offset], self._result.unique(f"{source}__shifted"))
        integers = self._symmetric("QuantizeLinear", shifted, f"{source}__quantized", steps)
        found = self._symmetric("DequantizeLinear", integers, f"{source}__dequantized", steps)
        return self._add("Sub", [found, offset], self._result.unique(f"{source}__restored")) if shift.any() else found

    def _clipped(self, source: str, steps: Steps) -> str:
        """16 bits are finer than FP16: what is left of the pair are its limits."""
        limits = np.iinfo(steps.dtype)
        low, high = (self._weight(source, part, steps.values(np.array(getattr(limits, part)))) for part in ("min", "max"))
        least = self._add("Max", [source, low], self._result.unique(f"{source}__at_least"))
        return self._add("Min", [least, high], self._result.unique(f"{source}__clipped"))

    def _as_integers(self, name: str) -> str:
        """The integers themselves, for a node that needs them."""
        if name not in self._integers:
            source, steps = self._kept[name]
            if steps.plain:
                found = self._symmetric("QuantizeLinear", source, f"{name}__quantized", steps)
            else:
                found = self._rounded_by_arithmetic(name, source, steps)
            self._integers[name] = found
        return self._integers[name]

    def _rounded_by_arithmetic(self, name: str, source: str, steps: Steps) -> str:
        limits, unique = np.iinfo(steps.dtype), self._result.unique
        divided = self._add("Div", [source, self._weight(name, "scale", steps.scale)], unique(f"{name}__divided"))
        whole = self._add("Round", [divided], unique(f"{name}__whole"))
        shifted = self._add("Add", [whole, self._weight(name, "zero", steps.zero.astype(np.float32))], unique(f"{name}__shifted"))
        least = self._add("Max", [shifted, self._weight(name, "min", np.float32(limits.min))], unique(f"{name}__at_least"))
        clipped = self._add("Min", [least, self._weight(name, "max", np.float32(limits.max))], unique(f"{name}__clipped"))
        to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(steps.dtype))
        return self._add("Cast", [clipped], unique(f"{name}__integers"), to=to)

    # ---- small parts

    def _symmetric(self, operator: str, source: str, output: str, steps: Steps) -> str:
        """A QuantizeLinear or DequantizeLinear of INT8 with zero point 0."""
        scale, zero = self._weight(output, "scale", steps.scale), self._weight(output, "zero_point", np.zeros(steps.scale.shape, np.int8))
        axis = {"axis": steps.axis} if steps.scale.size > 1 else {}
        return self._add(operator, [source, scale, zero], self._result.unique(output), **axis)

    def _steps(self, node: onnx.NodeProto, dtype: str) -> Steps | None:
        """
        Args:
            dtype: of the integers, where no zero point tells it.
        """
        zero = node.input[2] if len(node.input) > 2 else ""
        if attribute(node, "block_size", 0) or not zero and node.op_type == "QuantizeLinear" and attribute(node, "output_dtype", 0):
            return None
        return self._steps_of(Operand(node.input[0], node.input[1], zero, attribute(node, "axis", 1)), dtype)

    def _steps_of(self, operand: Operand, dtype: str, array: np.ndarray | None = None) -> Steps | None:
        """None where scale or zero point are no constants, or of a type that is none of INT8, UINT8, INT16, UINT16 and INT32."""
        scale, zero = self._result.weights.get(operand.scale), self._result.weights.get(operand.zero)
        if scale is None or operand.zero and zero is None or scale.ndim > 1:
            return None
        dtype = dtype if zero is None else zero.dtype.name
        if dtype not in (*BITS_8, *BITS_16, "int32"):
            return None
        scale = scale.astype(np.float32)
        zeros = np.zeros(scale.shape, np.int64) if zero is None else np.broadcast_to(zero.astype(np.int64).reshape(-1), (scale.size,))
        axis = operand.axis or 0
        if axis < 0 and array is not None:
            axis += array.ndim
        if scale.size == 1:
            return Steps(scale.reshape(()), zeros.reshape(()), dtype, axis)
        return Steps(scale, zeros, dtype, axis)

    def _weight(self, name: str, part: str, array) -> str:
        """A constant of its own, shared by all that need the same."""
        array = np.asarray(array)
        key = (part, array.dtype.name, array.shape, array.tobytes()) if array.size <= 4096 else (part, name, id(array))
        if key not in self._rounded:
            own = self._result.unique(f"{name}__{part}")
            self._result.weights[own] = array
            self._rounded[key] = own
        return self._rounded[key]

    def _add(self, operator: str, inputs: list[str], output: str, name: str = "", **attributes) -> str:
        name = name or self._result.unique(f"{output}__node")
        self._nodes.append(onnx.helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output
