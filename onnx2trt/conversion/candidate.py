"""What was made elsewhere, and shall be compared with the model."""

from __future__ import annotations

from dataclasses import dataclass

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.model_info import ModelInfo
from onnx2trt.compare.states import Runner
from onnx2trt.conversion.comparing import on_arrays
from onnx2trt.data.reader import Arrays
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.element_types import DOUBLE, as_float32
from onnx2trt.rewrite.simulate import simulation


@dataclass(frozen=True)
class OnnxCandidate:
    """A prepared ONNX of whatever tool."""

    info: ModelInfo
    graph: Graph

    def runner(self, model: ModelInfo, in_turn: bool = True) -> tuple[Runner, int]:
        """(what runs it: as it stands, or simulated where it has FP16, with the model's types of inputs and outputs; batches at once)

        Args:
            in_turn: one batch after the other.

        Raises:
            ConversionError: MODEL, where ONNX Runtime cannot load it.
        """
        simulated = simulation(self.graph)
        as_it_stands = simulated is self.graph
        session = self._as_it_stands() if as_it_stands else Session.from_graph(simulated, in_turn=in_turn)
        given = {spec.name: spec.dtype for spec in self.info.inputs}
        declared = {spec.name: spec.dtype for spec in model.outputs}

        def run(arrays: Arrays) -> Arrays:
            found = session.run({name: array.astype(given[name], copy=False) for name, array in arrays.items()})
            return {name: array.astype(declared[name], copy=False) for name, array in found.items()}

        return on_arrays(run), session.at_once

    def _as_it_stands(self) -> Session:
        """The file; in FP32 where ONNX Runtime lacks an operator in FP64, and with names of their own where nodes have one name."""
        try:
            return Session.from_path(self.info.path).bound_to(self.info.constants)
        except ConversionError as error:
            try:
                return Session.from_graph(as_float32(self.graph, (DOUBLE,)))
            except ConversionError:
                raise error from None
