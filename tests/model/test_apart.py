"""model/apart.py: the data of initializers beside the model."""

import numpy as np
from models import conv_net, random
from onnx import numpy_helper

from onnx2trt.model.apart import SMALL, apart
from onnx2trt.model.graph import Graph


def test_a_model_apart_from_its_weights_is_the_same_graph_and_all_graphs_of_it_share_them():
    source = conv_net()
    source.metadata_props.add(key="k", value="v")
    source.graph.initializer.append(numpy_helper.from_array(random(64, 64), "unread"))
    light, weights = apart(source)
    large = {tensor.name for tensor in source.graph.initializer if tensor.ByteSize() > SMALL}
    assert weights.keys() == large and light.ByteSize() < source.ByteSize() - sum(array.nbytes for array in weights.values()) + 512
    whole, one, other = Graph.from_model(source), Graph.from_model(light, (), weights), Graph.from_model(light, (), weights)
    assert one.proto == whole.proto and one.weights.keys() == whole.weights.keys()
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(one.weights[name], array)
        assert name not in large or one.weights[name] is other.weights[name]
    for tensor in light.graph.initializer:
        assert tensor.name not in large or not tensor.raw_data
    del source.graph.initializer[:], light.graph.initializer[:]
    assert light == source
