"""What the contract cases of both releases share."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import onnx

from onnx2trt.base.driver import Driver
from onnx2trt.model.graph import Graph
from onnx2trt.model.preflight import preflight
from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.shapes import make_profiles
from onnx2trt.trt.builder import EngineBuilder
from onnx2trt.trt.library import capabilities, load_library
from onnx2trt.trt.network import ParserInput
from onnx2trt.trt.plugins import load_plugins

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    LIBRARY = load_library("tensorrt")
TRT = LIBRARY.trt
CAPS = capabilities(LIBRARY, Driver(version="13.0", gpu="no GPU, only a contract", compute_capability="9.0"))


def plan_for(*flags: str):
    return make_plan(build_parser().parse_args(["--onnx", "m.onnx", *flags]), CAPS)


def plugin_library() -> str:
    """TensorRT's own plugins, as a library that somebody might name."""
    folders = os.environ["LD_LIBRARY_PATH"].split(":")
    return next(str(path) for folder in folders for path in Path(folder).glob("libnvinfer_plugin.so.*"))


class Case:
    """A model on its way into a network."""

    def __init__(self, folder, model: onnx.ModelProto, *flags: str, show=lambda *_: None):
        path = str(folder / "m.onnx")
        onnx.save(model, path)
        self.plan = plan_for(*flags)
        self.model, self.info = preflight(path, plugins=True)  # so that the parser is asked
        self.profiles = make_profiles(self.info.inputs, self.plan.shapes)
        self.graph = Graph.from_model(self.model, self.profiles)
        load_plugins(LIBRARY, self.plan.build.plugins, show)
        self.builder = EngineBuilder(LIBRARY, self.plan, show)

    @property
    def network(self):
        return self.builder._network

    def parse(self, graph: Graph | None = None, io=None) -> None:
        source = ParserInput(path=self.info.path) if graph is None else ParserInput(data=graph.to_model().SerializeToString())
        self.builder.parse(source, io or self.info)

    def config(self, **options):
        """The builder config just before the build, which these libraries cannot do without a GPU."""
        caught = []
        real = self.builder._builder

        class Stop(Exception):
            pass

        class Interceptor:
            def __getattr__(self, name):
                return getattr(real, name)

            def build_serialized_network(self, network, config):
                caught.append(config)
                raise Stop

        self.builder._builder = Interceptor()
        try:
            dynamic = any(spec.dynamic for spec in self.info.inputs)
            self.builder.build(self.profiles, dynamic, **options)
        except Stop:
            pass
        finally:
            self.builder._builder = real
        return caught[0]

    def flags(self, config) -> set[str]:
        return {name for name, flag in TRT.BuilderFlag.__members__.items() if config.get_flag(flag)}
