"""Run ONNX graphs in ONNX Runtime."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx

from onnx2trt.base.cores import usable_cores
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import return_freed
from onnx2trt.base.model_info import ModelInfo
from onnx2trt.base.read_ahead import map_in_order
from onnx2trt.base.under_way import UNDER_WAY
from onnx2trt.model import on_gpu
from onnx2trt.model.fp8_weights import fold_fp8_weights
from onnx2trt.model.graph import Graph, external_tensor
from onnx2trt.model.on_gpu import GPU, OnGpu, first_line, ort
from onnx2trt.model.padding import rows_of_samples

MOST_THREADS = 16  # more do not make single images faster
AT_ONCE = 2  # inferences of one session at once, where the cores allow it: each with its share of the threads (see Session.run_each)
LACKS = "NOT_IMPLEMENTED|Exception during initialization"  # its words for operators, types or attributes that it has no code for
# One takes a zero point of FP8 for one of UINT8, and drops the Relu in front; the other takes Splits of one tensor into two and into four
# parts for one (both in 1.32)
WRONG_OPTIMIZERS = ["ReluQuantRewrite", "CommonSubexpressionElimination"]
LARGE = 2**25  # bytes of weights; from here on it shows what of such a model stays with the process
INFERENCE = "one inference"  # what is said of it where it takes long
EXTERNAL_LIMIT = 1024  # bytes; larger weights are handed over as arrays, not serialized


class CannotLoad(ConversionError):
    """ONNX Runtime has no code for what a sound model needs; TensorRT may have it."""


class Session:
    """A model ready to run: on the GPU where ONNX Runtime has one (on_gpu.py), but for what is loaded without optimizing; else on the CPU.

    Q/DQ pairs are computed as they stand (`session.disable_quant_qdq`), so that results are the same on every CPU.
    """

    def __init__(self, session: ort.InferenceSession | OnGpu, keep_alive: list, at_once: int = 1):
        self._session = session
        self._constants: dict[str, np.ndarray] = {}
        self.at_once = at_once
        self._keep_alive = keep_alive  # ONNX Runtime refers to these arrays without owning them
        self.output_names = [output.name for output in session.get_outputs()]
        self._double = {value.name for value in session.get_inputs() if value.type == "tensor(double)"}

    @classmethod
    def from_path(cls, path: str, constants: dict[str, np.ndarray] | None = None) -> Session:
        """The model as the user gave it, external data included.

        Args:
            constants: input -> the value that it always has.

        Raises:
            ConversionError: MODEL, where ONNX Runtime cannot load it; a CannotLoad, where it lacks something.
        """
        session = cls(_load(path, _options(), path), [])
        session._constants = constants or {}
        return session

    @classmethod
    def of_model(cls, info: ModelInfo, adopted: Callable[[], Graph]) -> Session:
        """The model as the user gave it, with the values that inputs are bound to; where ONNX Runtime cannot run the file (BF16, names that
        occur twice), as it was adopted.

        Args:
            adopted: makes the graph of the model, adopted, its bound inputs constants; called where it is needed.

        Raises:
            ConversionError: MODEL, where ONNX Runtime can load neither.
        """
        try:
            session = cls.from_path(info.path, info.constants)
        except ConversionError:
            if not info.adopted:
                raise
            return cls.from_graph(adopted())
        same = set(session.output_names) == {spec.name for spec in info.outputs} and not session.has_bfloat16
        return session if same or not info.adopted else cls.from_graph(adopted())

    @classmethod
    def from_graph(
        cls, graph: Graph, extra_outputs: tuple[str, ...] = (), optimize: bool = True, in_turn: bool = True, hold: bool = True
    ) -> Session:
        """A working graph.

        Args:
            graph: is not changed; its weights are not copied.
            extra_outputs: inner tensors to return besides the graph's outputs.
            optimize: False keeps every node as it stands, and takes the size of a tensor before anything else, so that the tensor can go;
                on the CPU, since shapes and constants are wanted then.
            in_turn: one inference after the other, each with all threads; False divides them among AT_ONCE of them.
            hold: keep the memory of an inference for the next one.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(graph.proto)
        known = frozenset(graph.output_names)
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra_outputs if name not in known)
        at_once = cls.most_at_once(in_turn)
        options = _options(at_once)
        options.enable_cpu_mem_arena = hold
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        names, values = [], []
        for name, array in {**graph.weights, **fold_fp8_weights(proto, graph)}.items():
            if array.nbytes <= EXTERNAL_LIMIT or array.dtype.kind not in "fiu":
                proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            else:
                proto.graph.initializer.append(external_tensor(name, array, "weights", 0))
                names.append(name)
                values.append(ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)))
        if names:
            options.add_external_initializers(names, values)
        large = is_large(graph)
        if large:  # of the graph before this one, which is let go as a rule
            return_freed()
        loaded = cls(_load(proto.SerializeToString(), options, "the prepared model", optimize), values, at_once)
        if large:  # what was only needed to pack the weights
            return_freed()
        return loaded

    @classmethod
    def from_own_graph(cls, graph: Graph, in_turn: bool = True) -> Session:
        """A graph that nobody else needs any more; where it is large, its weights go by a file.

        Those that it is handed in memory ONNX Runtime packs, too, and they stay as they are beside that; those of a file it lets go of. Of
        a transformer of 340 MB it holds 340 MB then, not 680.

        Args:
            graph: changed, and without weights afterwards, where it is large.
            in_turn: as for from_graph.
        """
        if not is_large(graph) or GPU.works:  # which packs nothing, and needs the weights again where it fails
            return cls.from_graph(graph, in_turn=in_turn)
        graph.weights.update(fold_fp8_weights(graph.proto, graph))
        graph.prune()
        with tempfile.TemporaryDirectory(prefix="onnx2trt-") as folder:
            try:
                graph.save_apart(os.path.join(folder, "model.onnx"), "weights")
            except OSError:  # no room there
                return cls.from_graph(graph, in_turn=in_turn)
            graph.weights.clear()
            return_freed()
            at_once = cls.most_at_once(in_turn)
            loaded = cls(_load(os.path.join(folder, "model.onnx"), _options(at_once), "the prepared model"), [], at_once)
        return_freed()
        return loaded

    @staticmethod
    def most_at_once(in_turn: bool) -> int:
        """Inferences of one session at once."""
        return 1 if in_turn else min(AT_ONCE, usable_cores())

    def with_constants(self, constants: dict[str, np.ndarray]) -> Session:
        """The same, with these values for some of its inputs; nothing is loaded again."""
        other = copy.copy(self)
        other._constants = {**self._constants, **constants}
        return other

    @property
    def has_bfloat16(self) -> bool:
        """Whether it takes or gives BF16, which NumPy has not."""
        return any(value.type == "tensor(bfloat16)" for value in (*self._session.get_inputs(), *self._session.get_outputs()))

    def run(self, feed: dict[str, np.ndarray], outputs: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
        """One inference.

        Args:
            feed: input name -> array of the declared dtype; float32, too, where that is float64.
            outputs: the tensors to return; all outputs where None.

        Raises:
            ConversionError: MODEL, with ONNX Runtime's words.
        """
        names = list(outputs) if outputs is not None else self.output_names
        given = {**feed, **self._constants}
        if self._double:
            given = {name: array.astype(np.float64, copy=False) if name in self._double else array for name, array in given.items()}
        try:
            with UNDER_WAY.call(INFERENCE, often=True):
                return dict(zip(names, self._session.run(names, given)))
        except Exception as error:  # onnxruntime raises classes of its own, by status code
            shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feed.items())
            raise ConversionError(
                f"ONNX Runtime cannot run the model on {shapes}: {first_line(error)}",
                hint="Check shapes and values of the data against what the model expects; other data can be given as .npz files.",
                code=ExitCode.MODEL,
            ) from error

    def run_each(self, feeds: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """The outputs for each feed, in order, without the rows that only fill a batch; several inferences at once where the session was
        made for it.

        PP-OCRv4 det with Q/DQ at 640x640 on 2 cores: 113 ms for an image one after the other, 77 ms two at once.
        """
        return (rows_of_samples(feed, found) for feed, found in map_in_order(feeds, self.run, self.at_once))


def is_large(graph: Graph) -> bool:
    """Whether memory forbids a second session beside that of this graph: each holds the weights once more, packed."""
    return sum(array.nbytes for array in graph.weights.values()) >= LARGE


def threads_of(at_once: int) -> int:
    """Of each of several inferences at once."""
    return min(usable_cores() // at_once, MOST_THREADS)


def _options(at_once: int = 1) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters comes back as an exception
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.x64quantprecision", "1")  # else sums of QLinearConv and QGemm saturate on CPUs without VNNI
    # ONNX Runtime takes all cores of the machine, in a container, too, and then its threads wait for each other
    cores = usable_cores()
    if at_once > 1 or cores < (os.cpu_count() or 1) or cores > MOST_THREADS:
        options.intra_op_num_threads = threads_of(at_once)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # between inferences the cores are for our own counting
    return options


def _load(source, options: ort.SessionOptions, name: str, gpu: bool = True) -> ort.InferenceSession | OnGpu:
    def make(providers: list) -> ort.InferenceSession:
        return ort.InferenceSession(source, options, providers=providers, disabled_optimizers=WRONG_OPTIMIZERS, enable_fallback=0)

    try:
        with UNDER_WAY.call("what is constant in the model"):  # it computes that first
            options.use_deterministic_compute = gpu and GPU.works
            return on_gpu.load(make, gpu)
    except Exception as error:  # onnxruntime raises classes of its own, by status code
        newest = re.search(r"official support for domain ai\.onnx is till opset (\d+)", str(error))
        raise (CannotLoad if re.search(LACKS, str(error)) else ConversionError)(
            f"ONNX Runtime cannot load {name}: {first_line(error)}",
            hint=f"Export the model with opset {newest[1]} or an older one."
            if newest
            else "The model may use operators that only another runtime has, or be damaged.",
            code=ExitCode.MODEL,
        ) from error
