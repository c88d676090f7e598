"""trt/: our use of TensorRT against what each release really has, as tests/record_symbols.py took it from the wheels."""

import ast
import enum
import json
from dataclasses import replace
from types import ModuleType

import pytest
from command import ROOT

from onnx2trt.base.driver import Driver
from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.plan import Route, make_plan
from onnx2trt.trt.config import configure, wanted_flags
from onnx2trt.trt.library import Library, capabilities

TABLES = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests" / "symbols").glob("*.json"))}
WEAK = [name for name in TABLES if name.startswith(("tensorrt-8", "tensorrt-10"))]
STRONG = [name for name in TABLES if name not in WEAK]
GPU = Driver(version="13.0", gpu="NVIDIA test", compute_capability="8.9")


class Strict:
    """An object that has just the members that a class of the release has."""

    def __init__(self, table: dict, cls: str, behaviour: dict):
        members = table["classes"][cls]
        missing = set(behaviour) - set(members)
        object.__setattr__(self, "_state", ({name: value for name, value in behaviour.items() if name not in missing}, members, cls))

    def __getattr__(self, name):
        behaviour, members, cls = self._state
        if name not in members:
            raise AttributeError(f"{cls} of this release has no {name}")
        return behaviour[name]

    def __setattr__(self, name, value):
        behaviour, members, cls = self._state
        if members.get(name) != "property":
            raise AttributeError(f"{cls} of this release: {name} is {members.get(name, 'absent')}")
        behaviour[name] = value


def module_of(name: str) -> ModuleType:
    """A module with the enums of a release (real integers) and its classes as names."""
    table = TABLES[name]
    module = ModuleType("tensorrt")
    module.__version__ = table["version"]
    for label, members in table["enums"].items():
        if "." not in label:
            setattr(module, label, enum.IntEnum(label, members))
    for label, members in table["classes"].items():
        if "." not in label:
            setattr(module, label, type(label, (), dict.fromkeys(members)))
    return module


def library_of(name: str) -> Library:
    return Library("tensorrt-rtx" if "rtx" in name else "tensorrt", module_of(name))


def config_of(name: str) -> Strict:
    """A builder config that keeps what it is told."""
    flags, state = set(), {"pool": 0, "tactics": 31, "archs": {}}
    behaviour = {
        "set_flag": flags.add,
        "clear_flag": flags.discard,
        "get_flag": lambda flag: flag in flags,
        "set_memory_pool_limit": lambda pool, size: state.update(pool=size),
        "get_memory_pool_limit": lambda pool: state["pool"],
        "set_tactic_sources": lambda mask: state.update(tactics=mask) or True,
        "get_tactic_sources": lambda: state["tactics"],
        "set_compute_capability": lambda capability, index: state["archs"].update({index: capability}) or True,
        "get_compute_capability": lambda index: state["archs"][index],
    }
    return Strict(TABLES[name], "IBuilderConfig", behaviour)


def plan_of(name: str, *flags: str):
    args = build_parser().parse_args(["--onnx", "m.onnx", *flags])
    return make_plan(args, capabilities(library_of(name), GPU))


def test_all_releases_are_recorded():
    assert {"tensorrt-8.6.1", "tensorrt-10.0.1", "tensorrt-10.16.1", "tensorrt-11.4.0", "tensorrt-rtx-1.4.0", "tensorrt-rtx-1.7.1"} <= set(
        TABLES
    )


@pytest.mark.parametrize("name", TABLES)
def test_capabilities(name):
    caps = capabilities(library_of(name), GPU)
    assert caps.weak_typing == caps.calibrators == (name in WEAK)
    assert ("SM89" in caps.compute_capabilities) == ("rtx" in name)
    assert "AMPERE_PLUS" in caps.hardware_levels
    assert ("CUBLAS" in caps.tactic_sources) == (name in WEAK or name == "tensorrt-rtx-1.4.0")


@pytest.mark.parametrize(
    "name, weak, strong",
    [
        ("tensorrt-8.6.1", 1, None),
        ("tensorrt-10.0.1", 1, 2),
        ("tensorrt-10.16.1", 1, 2),
        ("tensorrt-11.4.0", None, 1),
        ("tensorrt-rtx-1.4.0", None, 2),
        ("tensorrt-rtx-1.7.1", None, 1),
    ],
)
def test_the_networks_mask(name, weak, strong):
    """11 gives None for the bit that means strongly typed in 10, and the other way round."""
    library = library_of(name)
    if weak is not None:
        assert library.network_flags(strongly_typed=False) == weak
    if strong is not None:
        assert library.network_flags(strongly_typed=True) == strong


@pytest.mark.parametrize(
    "name, version",
    [("tensorrt-8.6.1", "8601"), ("tensorrt-10.0.1", "100001"), ("tensorrt-10.6.0", "100600"), ("tensorrt-10.16.1", "101601")],
)
def test_the_version_in_calibration_caches(name, version):
    assert library_of(name).cache_version == version


@pytest.mark.parametrize("name", TABLES)
def test_calibrators(name):
    bases = library_of(name).calibrator_bases()
    assert set(bases) == ({"entropy", "minmax"} if name in WEAK else set())


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_builder_flags_of_each_precision(name, precision):
    flags = wanted_flags(module_of(name), plan_of(name, "--precision", precision))
    assert set(flags) <= set(TABLES[name]["enums"]["BuilderFlag"])
    wanted = {flag for flag, value in flags.items() if value}
    if name in WEAK:
        lowered = {"fp32": set(), "fp16": {"FP16"}, "int8": {"FP16", "INT8"}}[precision]
        assert "BF16" not in flags, "it is written into the network"
        assert wanted == lowered | {"PREFER_PRECISION_CONSTRAINTS", "GPU_FALLBACK"}
    else:
        assert wanted == set()
    assert flags["TF32"] is False


@pytest.mark.parametrize("name", [name for name in TABLES if not name.startswith("tensorrt-8")])
def test_bf16_is_written_into_the_network_of_every_library_but_8_6(name):
    assert capabilities(library_of(name), GPU).bf16
    plan = plan_of(name, "--precision", "bf16")
    assert plan.route is Route.STRONG and not any(wanted_flags(module_of(name), plan).values())


@pytest.mark.parametrize("name", WEAK)
@pytest.mark.parametrize(
    "constraints, flag", [("prefer", "PREFER_PRECISION_CONSTRAINTS"), ("obey", "OBEY_PRECISION_CONSTRAINTS"), ("none", None)]
)
def test_constraint_flags_exclude_each_other(name, constraints, flag):
    flags = wanted_flags(module_of(name), plan_of(name, "--precision-constraints", constraints))
    both = {key for key, value in flags.items() if key.endswith("CONSTRAINTS") and value}
    assert both == ({flag} if flag else set())


OPTIONS = {
    "plain": (),
    "workspace": ("--workspace-size", "0.25"),
    "tf32": ("--tf32",),
    "level": ("--builder-optimization-level", "5"),
    "no tactics": ("--disable-tactic-sources",),
    "tactics": ("--tactic-sources", "EDGE_MASK_CONVOLUTIONS"),
    "version": ("--version-compatible",),
    "hardware": ("--hardware-compatibility-level", "ampere_plus"),
    "archs": ("--gpu-arch", "8.9,12.0"),
    "strong": ("--strongly-typed",),
    "refit": ("--refittable",),
    "strip": ("--strip-weights",),
    "both": ("--refittable", "--strip-weights"),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_can_be_configured_or_is_refused_by_the_plan(name, option):
    from onnx2trt.base.errors import ConversionError, ExitCode

    module = module_of(name)
    try:
        plan = plan_of(name, *OPTIONS[option])
    except ConversionError as error:
        assert error.code is ExitCode.MACHINE
        assert (option in ("version", "hardware")) == ("rtx" in name) or (option == "archs") != ("rtx" in name)
        return
    config = config_of(name)
    configure(module, Strict(TABLES[name], "Builder", {"num_DLA_cores": 0}), config, plan)
    if option == "workspace":
        assert config.get_memory_pool_limit(None) == 2**28
    if option == "tf32":
        assert config.get_flag(module.BuilderFlag.TF32)
    if option == "level":
        assert config.builder_optimization_level == 5
    if option == "no tactics" and "rtx" not in name:
        assert config.get_tactic_sources() == 0
    if option == "tactics" and "rtx" not in name:
        assert config.get_tactic_sources() == 1 << int(module.TacticSource.EDGE_MASK_CONVOLUTIONS)
    if option == "archs":
        assert config.num_compute_capabilities == 2 and config.get_compute_capability(1) == module.ComputeCapability.SM120
    if option == "strong":
        assert plan.route is Route.STRONG
    if option in ("refit", "strip", "both"):
        assert name != "tensorrt-8.6.1", "it has no refitter of the parser's"
        told = {flag: config.get_flag(getattr(module.BuilderFlag, flag)) for flag in ("REFIT", "REFIT_IDENTICAL", "STRIP_PLAN")}
        assert told == {"REFIT": option != "strip", "REFIT_IDENTICAL": option == "strip", "STRIP_PLAN": option != "refit"}


@pytest.mark.parametrize("name", WEAK)
def test_a_dla_that_is_there_is_used(name):
    config, plan = config_of(name), plan_of(name, "--dla-core", "1")
    configure(module_of(name), Strict(TABLES[name], "Builder", {"num_DLA_cores": 2}), config, plan)
    assert config.DLA_core == 1 and config.default_device_type == module_of(name).DeviceType.DLA


@pytest.mark.parametrize("name", TABLES)
def test_a_setting_that_is_not_kept_is_a_failure(name):
    from onnx2trt.base.errors import ConversionError, ExitCode

    config, plan = config_of(name), plan_of(name)
    config._state[0]["get_memory_pool_limit"] = lambda pool: 7
    with pytest.raises(ConversionError, match="workspace") as caught:
        configure(module_of(name), None, config, plan)
    assert caught.value.code is ExitCode.BUILD
    config = config_of(name)
    config._state[0]["get_flag"] = lambda flag: True
    with pytest.raises(ConversionError, match="TF32"):
        configure(module_of(name), None, config, replace(plan, tf32=False))


# (file, expression) -> class whose members it uses; guarded ones are asked for by hasattr or getattr first
USES = [
    ("trt/engine.py", "self._engine", "ICudaEngine", TABLES, {"device_memory_size"}),
    ("trt/engine.py", "engine", "ICudaEngine", TABLES, {"get_tensor_profile_values"}),
    ("trt/engine.py", "self._context", "IExecutionContext", TABLES, set()),
    ("trt/engine.py", "context", "IExecutionContext", TABLES, set()),
    ("trt/engine.py", "self._runtime", "Runtime", TABLES, set()),
    ("trt/engine.py", "inspector", "EngineInspector", TABLES, set()),
    ("trt/builder.py", "self._builder", "Builder", TABLES, set()),
    ("trt/builder.py", "self._network", "INetworkDefinition", TABLES, set()),
    ("trt/builder.py", "self._parser", "OnnxParser", TABLES, set()),
    ("trt/builder.py", "profile", "IOptimizationProfile", TABLES, set()),
    ("trt/builder.py", "config", "IBuilderConfig", WEAK, set()),
    ("trt/builder.py", "config", "IBuilderConfig", STRONG, {"int8_calibrator", "set_calibration_profile"}),
    ("trt/config.py", "config", "IBuilderConfig", WEAK, {"num_compute_capabilities", "set_compute_capability", "get_compute_capability"}),
    ("trt/network.py", "network", "INetworkDefinition", TABLES, set()),
    ("trt/network.py", "parser", "OnnxParser", TABLES, {"load_initializer", "load_model_proto", "parse_model_proto"}),
    ("trt/kernels.py", "network", "INetworkDefinition", TABLES, set()),
    ("trt/parser_errors.py", "error", "ParserError", TABLES, {"node_operator", "node_name", "local_function_stack"}),
    ("trt/network.py", "layer", "ILayer", TABLES, set()),
    ("trt/constraints.py", "layer", "ILayer", WEAK, set()),
    ("trt/constraints.py", "network", "INetworkDefinition", WEAK, set()),
]


@pytest.mark.parametrize("file, expression, cls, releases, guarded", USES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_member_that_we_use_exists(file, expression, cls, releases, guarded):
    used = {
        node.attr
        for node in ast.walk(ast.parse((ROOT / "onnx2trt" / file).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == expression
    }
    assert used, f"{file} does not use {expression} any more"
    for name in releases:
        missing = used - set(TABLES[name]["classes"][cls]) - guarded
        assert not missing, f"{name}: {cls} has no {sorted(missing)}"


def test_what_is_guarded_is_really_missing_somewhere():
    """A guard for a member that every release has would only hide a typing error."""
    for _, _, cls, releases, guarded in USES:
        for member in guarded:
            assert any(member not in TABLES[name]["classes"][cls] for name in releases), (cls, member)


@pytest.mark.parametrize("name", TABLES)
def test_the_output_allocator_and_logger_can_be_subclassed(name):
    classes = TABLES[name]["classes"]
    assert "IOutputAllocator" in classes and "ILogger" in classes and "ILogger.Severity" in TABLES[name]["enums"]
