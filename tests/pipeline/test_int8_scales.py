"""pipeline/int8.py: the scales that TensorRT's calibrator gets of all that an engine may hold in INT8, over random networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import planned
from random_networks import CALIBRATED, random_network, write

from onnx2trt.model.session import Session
from onnx2trt.pipeline import int8
from onnx2trt.plan.structures import BOUND, FREE
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.qdq import quantizable_layers

FLAGS = ("--precision", "int8", "--calibration-cache", "c.cache", "--max-accuracy-drop", "100", "--no-validate", "--no-baseline")
CLOSE = 1.1  # weights are rounded
SEEDS = (4, 9, 14, 21, 30, 33)


def prepared(structure, *flags) -> Prepared:
    """What would be built of model.onnx in the current folder on TensorRT 10; what is to be written is written."""
    job, run = planned(*FLAGS, *flags, library="weak")
    run.write_now = lambda contents: [Path(path).write_bytes(data) for path, data in contents.items()]
    return int8.choose(job, run).in_structure(structure).prepared(run)


def largest(made: Prepared, feeds) -> dict[str, float]:
    """Tensor that has a scale -> max |x| over the data, by looking at it."""
    session = Session.from_graph(made.graph, tuple(made.scales))
    found = [session.run(feed, tuple(made.scales)) for feed in feeds]
    return {name: max(float(np.abs(values[name]).max()) for values in found) for name in made.scales}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("structure", [FREE, BOUND], ids=lambda structure: structure.name)
def test_a_scale_reaches_what_its_tensor_holds(seed, structure, tmp_path, monkeypatch):
    """No bound for it: of a SqueezeNet whose ReLUs got the ranges of what they read, 10 dB were left of 51."""
    monkeypatch.chdir(tmp_path)
    network = random_network(seed)
    write(network, tmp_path)
    made = prepared(structure, "--calibration-dir", "data")
    held = largest(made, [network.feed(number) for number in range(CALIBRATED)])
    joined = {name: node.output[0] for node in made.graph.nodes if node.op_type == "Concat" for name in node.input}
    calibrated = {made.scales.get(layer.activation) for layer in quantizable_layers(made.graph)}  # may clip; what is moved gets them, too
    for name, scale in made.scales.items():
        reach, wanted = 127 * scale, [held[tensor] for tensor in (name, joined.get(name)) if tensor in held]
        assert reach <= max(wanted) * CLOSE, (name, reach, wanted)
        assert scale in calibrated or reach >= held[name] / CLOSE, (name, reach, wanted)
    again = prepared(structure)
    assert again.scales == pytest.approx(made.scales), "from the cache, of equalized channels, too"


def levels(made: Prepared, name: str) -> np.ndarray:
    """The weights of a convolution in steps of INT8, of each output channel."""
    (weight,) = (made.graph.weights[node.input[1]] for node in made.graph.nodes if node.name == name)
    channels = weight.reshape(len(weight), -1)
    return 127 * channels / np.abs(channels).max(axis=1, keepdims=True)


def test_what_is_not_computed_in_int8_has_the_weights_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(random_network(SEEDS[1]), tmp_path)
    fitted = prepared(FREE, "--calibration-dir", "data")
    read = {node.name: node.input[1] for node in fitted.graph.nodes if node.op_type == "Conv"}
    first, other, *_ = (name for name, weight in read.items() if weight.endswith("__fitted"))
    own = prepared(replace(FREE, own_weights=frozenset([first])))
    for name, made, rounded in ((first, fitted, True), (first, own, False), (other, fitted, True), (other, own, True)):
        found = levels(made, name)
        assert (np.abs(found - np.rint(found)).max() < 1e-3) == rounded, name
    assert own.scales == pytest.approx(fitted.scales), "it may be INT8 all the same"
