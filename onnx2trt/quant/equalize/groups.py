"""Which channels of which tensors must be scaled, or shifted, together so that a network can stay what it is.

Every channel of every float32 activation is one unknown. Operators tie unknowns (ReLU: output like input), fix them (a
sigmoid: nothing may change), or leave them free, because their constants can take the change in (a convolution's weights).
Whatever is tied together and nowhere fixed may be chosen at will; quant/equalize/apply.py puts the choice into the constants.
"""

from __future__ import annotations

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.quant.equalize.relations import Group, Relations
from onnx2trt.quant.equalize.rules import SCALE_RULES, SHIFT_RULES, product, same_weights


def scale_groups(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> tuple[Group, ...]:
    """Tensors that can be divided by a positive number for each channel, those that feed a convolution or matrix product.

    Args:
        graph: folded; not changed.
        shapes: tensor -> shape (observe.static_shapes); tensors without one stay as they are.
    """
    relations = Relations(graph, shapes)
    products = []
    for node in graph.nodes:
        if node.op_type == "Mul" and node.domain in STANDARD_DOMAINS and not any(name in graph.weights for name in node.input):
            products.append(node)  # which operand can carry a scale depends on all other nodes
        else:
            relations.enter(node, SCALE_RULES)
    same_weights(relations)
    for node in products:
        relations.enter(node, {"Mul": product})
    return relations.groups()


def shift_groups(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> tuple[Group, ...]:
    """Tensors from which a number for each channel can be subtracted, those that feed a convolution or matrix product.

    Args:
        graph: folded; not changed.
        shapes: as for scale_groups.
    """
    relations = Relations(graph, shapes)
    for node in graph.nodes:
        relations.enter(node, SHIFT_RULES)
    return relations.groups()
