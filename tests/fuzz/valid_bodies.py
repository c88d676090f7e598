"""Random valid models whose layers stand in bodies of If, Loop and Scan, also of one inside another, with weights inside and outside."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.valid_models import Maker, Tensor
from tests.fuzz.valid_parts import FLOAT, INT64

DEEPEST = 2  # bodies in bodies
OPSETS = (13, 16, 17, 18)


def block(m: Maker, x: Tensor, depth: int = 0) -> Tensor:
    """One layer, or control flow around others; the shape stays."""
    kinds = [layer] if depth == DEEPEST else [layer] * depth + [chosen, repeated] + [scanned] * (x.rank == 3)
    return m.pick(*kinds)(m, x, depth)


def layer(m: Maker, x: Tensor, depth: int) -> Tensor:
    c = x.shape[0 if x.rank == 4 else -1]
    if x.rank == 4:
        y = m.add("Conv", x.name, m.weight(c, c, 3, 3, fan_in=9 * c), m.weight(c, gain=0.2), pads=[1] * 4)
    else:
        y = m.add("Add", m.add("MatMul", x.name, m.weight(c, c, fan_in=c)), m.weight(c, gain=0.2))
    y = m.add(m.pick("Relu", "Tanh", "Sigmoid", "LeakyRelu"), y)
    return Tensor(m.add("Add", x.name, y) if m.chance(0.3) else y, x.shape)


def inside(m: Maker, make) -> tuple[list, list, list]:
    """Nodes, names of the results and initializers of a body; the other weights stay outside.

    Args:
        make: makes the nodes, and gives the names of what the body gives.
    """
    outer, before, m.nodes = m.nodes, set(m.weights), []
    results = [m.add("Identity", name) for name in make()]
    nodes, m.nodes = m.nodes, outer
    own = [name for name in m.weights if name not in before and m.weights[name].dtype == np.float32] if m.chance(0.5) else []
    m.constants -= set(own)
    return nodes, results, [numpy_helper.from_array(m.weights.pop(name), name) for name in own]


def chosen(m: Maker, x: Tensor, depth: int) -> Tensor:
    """An If: by what the input is, so that both branches run over the data, or by a constant."""
    m.kinds.append("If" if depth == 0 else "If inside")
    mean = m.reduce("ReduceMean", x.name, list(range(x.rank)), 0)
    condition = m.add("Greater", mean, m.const(float(m.random.normal()) * 0.05, "c", np.float32))
    if m.chance(0.2):
        condition = m.const(m.chance(0.5), "c", np.bool_)
    branches = []
    for name in ("then", "else"):
        nodes, results, weights = inside(m, lambda: [block(m, x, depth + 1).name])
        branches.append(helper.make_graph(nodes, m.fresh(name), [], [helper.make_tensor_value_info(results[0], FLOAT, None)], weights))
    return Tensor(m.add("If", condition, then_branch=branches[0], else_branch=branches[1]), x.shape)


def repeated(m: Maker, x: Tensor, depth: int) -> Tensor:
    """A Loop of a few rounds over one state."""
    m.kinds.append("Loop" if depth == 0 else "Loop inside")
    step, go, state = m.fresh("i"), m.fresh("go"), m.fresh("state")
    nodes, results, weights = inside(m, lambda: [go, block(m, Tensor(state, x.shape), depth + 1).name])
    types = ((step, INT64, []), (go, TensorProto.BOOL, []), (state, FLOAT, None))
    inputs = [helper.make_tensor_value_info(*one) for one in types]
    outputs = [helper.make_tensor_value_info(results[0], TensorProto.BOOL, []), helper.make_tensor_value_info(results[1], FLOAT, None)]
    body = helper.make_graph(nodes, m.fresh("round"), inputs, outputs, weights)
    rounds = m.const(m.pick(1, 2, 3), "n", np.int64)
    return Tensor(m.add("Loop", rounds, m.const(True, "c", np.bool_), x.name, body=body), x.shape)


def scanned(m: Maker, x: Tensor, depth: int) -> Tensor:
    """A Scan along the steps of sequences [N, T, C]: a recurrent cell that somebody has written out."""
    m.kinds.append("Scan" if depth == 0 else "Scan inside")
    c, state, now = x.shape[-1], m.fresh("state"), m.fresh("now")
    start = m.reduce("ReduceMean", x.name, [1], 0)

    def cell() -> list[str]:
        both = m.add("Add", m.add("MatMul", state, m.weight(c, c, fan_in=2 * c)), m.add("MatMul", now, m.weight(c, c, fan_in=2 * c)))
        after = m.add("Tanh", both)
        return [after, block(m, Tensor(after, (c,)), depth + 1).name]

    nodes, results, weights = inside(m, cell)
    inputs, outputs = ([helper.make_tensor_value_info(name, FLOAT, ["N", c]) for name in names] for names in ((state, now), results))
    body = helper.make_graph(nodes, m.fresh("cell"), inputs, outputs, weights)
    more = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    return Tensor(m.node("Scan", [start, x.name], 2, body=body, **more)[1], x.shape)
