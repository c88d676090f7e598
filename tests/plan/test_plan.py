"""plan/plan.py: every decision of a conversion, and no flag that is parsed and dropped."""

import argparse
import ast
import contextlib
import dataclasses
from pathlib import Path

import pytest
from helpers import BESIDE, LIBRARIES, ROOT, flag_actions, parse, refused, typing

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan import effects as flag_effects
from onnx2trt.plan.effects import Effect
from onnx2trt.plan.plan import EFFORTS, Calibration, Plan, Preprocess, Route, Shapes, engine_path, make_plan
from onnx2trt.plan.precision_arguments import QUANTIZATION_EFFORTS


def plan_for(library: str, *flags: str) -> Plan:
    return make_plan(parse(*flags), LIBRARIES[library])


def at(plan: Plan, place: str):
    for part in place.split("."):
        plan = getattr(plan, part)
    return plan


DEFAULTS = {
    "onnx": "model.onnx",
    "precision": "fp16",
    "executes_here": True,
    "gpu_archs": (),
    "workspace_bytes": 4 * 2**30,
    "tactic_sources": None,
    "tf32": False,
    "keep_layers": True,
    "layer_precisions": (),
    "io_types": (),
    "build.precision_constraints": "prefer",
    "build.optimization_level": None,
    "build.timing_cache": None,
    "skip_unchanged": False,
    "build.dla_core": None,
    "build.plugins": (),
    "build.version_compatible": False,
    "build.hardware_compatibility": "none",
    "build.refittable": False,
    "build.strip_weights": False,
    "refit": None,
    "shapes": Shapes((), (), (), 1),
    "preprocess": Preprocess(None, "stretch", 1, (), ()),
    "calibration": Calibration(None, 500, None, "auto", False, EFFORTS["default"]),
    "validation.enabled": True,
    "validation.test_image": None,
    "validation.directory": None,
    "validation.max_drop_percent": 1.0,
    "validation.require_execution": False,
    "validation.engine": None,
    "outputs.engine": "model.engine",
    "outputs.keep_failed": False,
    "outputs.save_onnx": None,
    "outputs.triton_model": None,
    "outputs.json": None,
    "outputs.report": None,
    "dry_run": False,
    "effects": (),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("place", DEFAULTS)
def test_default(library, place):
    assert at(plan_for(library), place) == DEFAULTS[place]


@pytest.mark.parametrize(("library", "route"), [("weak", Route.WEAK), ("strong", Route.STRONG), ("rtx", Route.STRONG)])
def test_route_and_backend_follow_the_library(library, route):
    plan = plan_for(library)
    assert plan.route is route
    assert plan.backend == LIBRARIES[library].backend


VALUES = [  # flags, place in the plan, value
    ("--precision int8", "precision", "int8"),
    ("--workspace-size 0.5", "workspace_bytes", 2**29),
    ("--workspace-size 1.5", "workspace_bytes", 3 * 2**29),
    ("--tf32", "tf32", True),
    ("--disable-strict-types", "keep_layers", False),
    ("--precision-constraints none", "keep_layers", False),
    ("--precision-constraints obey", "keep_layers", True),
    ("--io-types x:fp16,y:0:fp32", "io_types", (("x", "fp16"), ("y:0", "fp32"))),
    ("--builder-optimization-level 0", "build.optimization_level", 0),
    ("--timing-cache t", "build.timing_cache", None),
    ("--quantization qdq", "calibrator", False),
    ("--layer-precisions a:fp32 b:0:fp16", "layer_precisions", (("a", "fp32"), ("b:0", "fp16"))),
    ("--min-shapes x:1x8", "shapes.min", (("x", (1, 8)),)),
    ("--opt-shapes x:2x8,y:3", "shapes.opt", (("x", (2, 8)), ("y", (3,)))),
    ("--max-shapes 4x8", "shapes.max", (("", (4, 8)),)),
    ("--max-batch-size 8", "shapes.max_batch", 8),
    ("--color bgr", "preprocess.color", "bgr"),
    ("--resize letterbox", "preprocess.resize", "letterbox"),
    ("--input-range 255", "preprocess.input_range", 255),
    ("--mean 1 2,3", "preprocess.mean", (1.0, 2.0, 3.0)),
    ("--std 4,5 6", "preprocess.std", (4.0, 5.0, 6.0)),
    ("--calibration-dir d", "calibration.directory", "d"),
    ("--calibration-samples 7", "calibration.samples", 7),
    ("--calibration-cache c", "calibration.cache", "c"),
    ("--calibration-method mse", "calibration.method", "mse"),
    ("--accept-stale-cache", "calibration.accept_stale", True),
    ("--quantization-effort fast", "calibration.effort", EFFORTS["fast"]),
    ("--quantization-effort best", "calibration.effort", EFFORTS["best"]),
    ("--no-validate", "validation.enabled", False),
    ("--test-image t.jpg", "validation.test_image", "t.jpg"),
    ("--validation-dir v", "validation.directory", "v"),
    ("--max-accuracy-drop 2.5", "validation.max_drop_percent", 2.5),
    ("--require-execution", "validation.require_execution", True),
    ("--validate-only e", "validation.engine", "e"),
    ("-o a/b.plan", "outputs.engine", "a/b.plan"),
    ("-o a/b.plan", "outputs.side_file", "a/b.plan.json"),
    ("--keep-failed", "outputs.keep_failed", True),
    ("--save-onnx s", "outputs.save_onnx", "s"),
    ("--json -", "outputs.json", "-"),
    ("--report r.html", "outputs.report", "r.html"),
    ("--dry-run", "dry_run", True),
    ("--gpu-arch 89 sm_120 8.9", "gpu_archs", ("8.9", "12.0")),
    ("--gpu-arch 75", "gpu_archs", ("7.5",)),
]


@pytest.mark.parametrize(("flags", "place", "expected"), VALUES, ids=[f"{flags} -> {place}" for flags, place, _ in VALUES])
def test_value_of_a_flag_in_the_plan(flags, place, expected):
    assert at(plan_for("rtx", *flags.split()), place) == expected


VALUES_OF_TENSORRT = [
    ("--triton-repository r", "outputs.triton_model", "r/model"),
    ("--triton-repository r -o a/b.v1.plan", "outputs.triton_model", "r/b.v1"),
    ("--timing-cache t", "build.timing_cache", "t"),
    ("--tactic-sources CUBLAS", "tactic_sources", ("CUBLAS",)),
    ("--dla-core 0", "build.dla_core", 0),
    ("--plugins a.so b.so --plugins c.so", "build.plugins", ("a.so", "b.so", "c.so")),
    ("--version-compatible", "build.version_compatible", True),
    ("--refittable", "build.refittable", True),
    ("--strip-weights", "build.strip_weights", True),
    ("--refit e", "refit", "e"),
    ("--hardware-compatibility-level ampere_plus", "build.hardware_compatibility", "ampere_plus"),
    ("--precision-constraints obey", "build.precision_constraints", "obey"),
    ("--disable-strict-types", "build.precision_constraints", "none"),
    ("--strongly-typed", "route", Route.STRONG),
    ("--quantization qdq", "calibrator", False),
    ("--quantization calibrator", "calibrator", True),
    ("--strongly-typed", "calibrator", False),
    ("--tf32", "calibrator", True),  # auto
]


@pytest.mark.parametrize(("flags", "place", "expected"), VALUES_OF_TENSORRT, ids=[f"{f} -> {p}" for f, p, _ in VALUES_OF_TENSORRT])
def test_value_of_a_flag_of_tensorrt_10(flags, place, expected):
    assert at(plan_for("weak", *flags.split()), place) == expected


def reads_of_args() -> dict[str, set[str]]:
    """Product file -> the flags that it reads from the parsed command line."""
    flags = {action.dest for action in flag_actions()} | {"onnx"}
    found = {}
    for path in (*Path(ROOT).glob("*.py"), *Path(ROOT, "onnx2trt").rglob("*.py")):
        attributes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        read = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "args"}
        found[path.relative_to(ROOT).as_posix()] = read & flags
    return found


READS = reads_of_args()
# --backend, --verbose and the like
BEFORE = tuple(
    f"onnx2trt/{name}" for name in ("cli.py", "api.py", "worker.py", "stages/probe.py", "pipeline/convert.py", "pipeline/refit.py")
)
BEFORE_THE_PLAN = set().union(*(READS[name] for name in BEFORE))


@pytest.mark.parametrize("action", flag_actions(), ids=lambda action: action.dest)
def test_no_flag_is_parsed_and_dropped(action):
    """A value other than the default makes another plan with some library, beyond the list of effects that the user is shown."""
    changed = [action.dest in BEFORE_THE_PLAN]
    for library in LIBRARIES.values():
        with contextlib.suppress(ConversionError):  # refused with this one
            beside = BESIDE.get(action.dest, ())
            typed = make_plan(parse(*typing(action), *beside), library)
            changed.append(dataclasses.replace(typed, effects=()) != make_plan(parse(*beside), library))
    assert any(changed), f"{action.dest} changes nothing in any plan"


@pytest.mark.parametrize("action", flag_actions(), ids=lambda action: action.dest)
def test_every_flag_is_read_where_the_plan_is_made(action, monkeypatch):
    """Reads of typed_flags do not count: it looks at every flag without using any."""
    read = set()

    class Recorder(argparse.Namespace):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(flag_effects, "typed_flags", lambda args: [])
    for library in LIBRARIES.values():
        make_plan(Recorder(**vars(parse())), library)
    assert action.dest in read | BEFORE_THE_PLAN


def test_after_the_plan_nobody_asks_the_command_line_again():
    """The fleet reads what each of its conversions will be asked."""
    allowed = (
        "onnx2trt/plan/plan.py",
        "onnx2trt/plan/variants.py",
        "onnx2trt/plan/effects.py",
        "onnx2trt/plan/outputs.py",
        "onnx2trt/plan/rules.py",
        "onnx2trt/plan/refit.py",
        "onnx2trt/plan/build.py",
        "onnx2trt/plan/variants.py",
        *BEFORE,
    )
    assert {name: flags for name, flags in READS.items() if flags and name not in allowed and not name.startswith("onnx2trt/fleet/")} == {}


def test_a_plan_cannot_be_changed():
    plan = plan_for("rtx", "--gpu-arch", "89", "--layer-precisions", "a:fp32", "--mean", "1")
    assert hash(plan) == hash(dataclasses.replace(plan))  # tuples all the way down
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.precision = "fp32"
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.shapes.max_batch = 2


def test_an_arch_that_the_library_does_not_know_is_refused_with_those_it_knows():
    with refused(ExitCode.MACHINE, "tensorrt-rtx 1.7.1.116 cannot build for sm_61, sm_90", hint="sm_75, sm_80, sm_89, sm_120;"):
        plan_for("rtx", "--gpu-arch", "61", "89", "90")


REFUSALS = [
    ("weak", "--gpu-arch 89"),
    ("strong", "--gpu-arch 89"),
    ("strong", "--dla-core 0"),
    ("rtx", "--dla-core 0"),
    ("rtx", "--plugins a.so"),
    ("rtx", "--version-compatible"),
    ("rtx", "--hardware-compatibility-level ampere_plus"),
]


@pytest.mark.parametrize(("library", "flags"), REFUSALS)
def test_a_refused_flag_is_refused_with_the_words_of_the_table(library, flags):
    flag = flags.split()[0]
    with refused(ExitCode.MACHINE, flag, flag_effects.TABLE[flag][library].note):
        plan_for(library, *flags.split())


@pytest.mark.parametrize("library", ["weak", "strong"])
def test_gpu_arch_is_refused_without_rtx(library):
    with refused(ExitCode.MACHINE):
        plan_for(library, "--gpu-arch", "89")


EXECUTES = [  # library, its GPU, architectures of the engine, whether it runs here
    ("weak", "7.5", (), True),
    ("strong", "9.0", (), True),
    ("strong", "", (), False),
    ("rtx", "", (), False),
    ("rtx", "8.9", (), True),
    ("rtx", "9.0", (), False),  # data-centre GPUs refuse such engines
    ("rtx", "8.9", ("8.9",), True),
    ("rtx", "8.9", ("8.6", "8.9"), True),
    ("rtx", "8.9", ("12.0",), False),
    ("rtx", "7.5", ("7.5",), True),
    ("rtx", "7.5", (), False),
]


def with_gpu(library: str, arch: str, problem: str = ""):
    return dataclasses.replace(LIBRARIES[library], gpu=arch and "GPU", gpu_arch=arch, driver_problem=problem)


@pytest.mark.parametrize(("library", "gpu_arch", "archs", "expected"), EXECUTES)
def test_whether_the_engine_can_be_executed_here(library, gpu_arch, archs, expected):
    assert with_gpu(library, gpu_arch).executes(archs) is expected


def test_execution_that_is_required_but_not_possible_is_refused_with_the_reason():
    flags = parse("--require-execution")
    with refused(ExitCode.MACHINE, "--require-execution", "no driver here", hint="leave the flag out"):
        make_plan(flags, with_gpu("rtx", "", "no driver here"))
    with refused(ExitCode.MACHINE, "9.0", "TensorRT-RTX GPUs"):
        make_plan(flags, with_gpu("rtx", "9.0"))
    with refused(ExitCode.MACHINE, "8.9", "engine is for 12.0"):
        make_plan(parse("--require-execution", "--gpu-arch", "120"), with_gpu("rtx", "8.9"))
    assert make_plan(flags, with_gpu("rtx", "8.9")).executes_here
    assert not make_plan(parse(), with_gpu("rtx", "9.0")).executes_here


@pytest.mark.parametrize(("library", "expected"), [("weak", ()), ("strong", ()), ("rtx", None)])
def test_tactic_sources_are_switched_off_where_there_are_any(library, expected):
    assert plan_for(library).tactic_sources is None
    assert plan_for(library, "--disable-tactic-sources").tactic_sources == expected


def test_tactic_sources_that_the_library_does_not_know_are_refused():
    with refused(ExitCode.MACHINE, "--tactic-sources CUDNN", "11.2.1.3 knows CUBLAS", hint="left TensorRT"):
        plan_for("strong", "--tactic-sources", "cublas,CUDNN")


def test_a_hardware_level_that_the_library_does_not_know_is_refused():
    old = dataclasses.replace(LIBRARIES["weak"], hardware_levels=frozenset({"NONE", "AMPERE_PLUS"}))
    with refused(ExitCode.MACHINE, "no hardware compatibility level same_compute_capability", hint="ampere_plus, none"):
        make_plan(parse("--hardware-compatibility-level", "same_compute_capability"), old)


@pytest.mark.parametrize(("library", "flags"), [("strong", []), ("rtx", []), ("weak", ["--strongly-typed"])])
def test_a_calibrator_needs_weak_typing(library, flags):
    with refused(ExitCode.MACHINE, "--quantization calibrator", hint="Q/DQ"):
        plan_for(library, "--quantization", "calibrator", *flags)


def test_tensorrt_without_a_gpu_is_refused_with_the_way_out():
    with refused(ExitCode.MACHINE, "11.2.1.3 needs a GPU", "no driver here", hint="--backend tensorrt-rtx"):
        make_plan(parse(), with_gpu("strong", "", "no driver here"))
    assert not make_plan(parse(), with_gpu("rtx", "", "no driver here")).executes_here


def test_strongly_typed_is_not_said_to_be_without_effect_where_it_has_one():
    effects = dict(plan_for("weak", "--strongly-typed").effects)
    assert effects.get("--strongly-typed", flag_effects.Cell(Effect.APPLIED, "")).effect is not Effect.NO_EFFECT


def test_what_is_translated_or_ignored_stands_in_the_plan():
    effects = plan_for("rtx", "--disable-tactic-sources", "--disable-strict-types").effects
    assert {flag: cell.effect for flag, cell in effects} == {
        "--disable-tactic-sources": Effect.NO_EFFECT,
        "--disable-strict-types": Effect.TRANSLATED,
    }


@pytest.mark.parametrize(
    ("onnx", "output", "expected"),
    [
        ("models/net.v2.onnx", None, "net.v2.engine"),
        ("net", None, "net.engine"),
        ("a/b.onnx", "c/d.plan", "c/d.plan"),
    ],
)
def test_engine_path(onnx, output, expected):
    args = parse()
    args.onnx, args.output = onnx, output
    assert engine_path(args) == expected


def test_every_effort_that_can_be_typed_is_known_and_more_of_it_does_not_do_less():
    assert tuple(EFFORTS) == QUANTIZATION_EFFORTS
    for less, more in zip(EFFORTS.values(), list(EFFORTS.values())[1:]):
        assert dataclasses.astuple(less) < dataclasses.astuple(more)
        assert less.equalize <= more.equalize and less.fit <= more.fit and less.samples <= more.samples
    assert not EFFORTS["fast"].fit and not EFFORTS["fast"].equalize


# ---- which engines are built

NO_GPU = with_gpu("rtx", "", "there is no driver")


@pytest.mark.parametrize(
    "library, flags, variants",
    [
        ("weak", "--precision fp16", ("fp16",)),
        ("weak", "--precision int8 --calibration-dir d", ("int8", "fp16")),
        ("weak", "--precision int8 --calibration-dir d --no-baseline", ("int8",)),
        ("weak", "--precision int8 --calibration-dir d --no-validate", ("int8",)),
        ("no gpu", "--precision int8 --calibration-dir d", ("int8",)),
        ("no gpu", "--compare", ("fp16", "fp32", "bf16", "int8")),
        ("weak", "--precision int8 --compare", ("int8", "fp32", "fp16")),
        ("weak", "--precision best", ("fp16",)),
        ("weak", "--precision best --calibration-dir d", ("fp16", "int8")),
        ("weak", "--precision best --calibration-cache c", ("fp16", "int8")),
        ("strong", "--precision best --compare", ("fp16", "bf16", "fp32", "int8")),
        ("strong", "--precision best --calibration-dir d", ("fp16", "bf16", "int8")),
        ("rtx", "--precision bf16 --compare", ("bf16", "fp32", "fp16", "int8")),
        ("rtx", "--precision best --gpu-arch 89", ("fp16", "bf16")),
    ],
)
def test_what_is_built(library, flags, variants):
    assert make_plan(parse(*flags.split()), {**LIBRARIES, "no gpu": NO_GPU}[library]).variants == variants


@pytest.mark.parametrize(
    "library, changed, flags, words",
    [
        ("weak", {"version": "8.6.1", "bf16": False}, "", ("tensorrt 8.6.1 has no BF16", "TensorRT 10")),
        ("weak", {}, "", ("compute capability 7.5 have no BF16", "8.0")),
        ("rtx", {}, "--gpu-arch 75", ("compute capability 7.5 have no BF16", "8.0")),
        ("rtx", {"bf16": False}, "", ("tensorrt-rtx 1.7.1.116 has no BF16",)),
    ],
)
def test_bf16_is_refused_where_library_or_gpu_have_none(library, changed, flags, words):
    caps = dataclasses.replace(LIBRARIES[library], **changed)
    with refused(ExitCode.MACHINE, "--precision bf16", *words, hint="--precision fp16"):
        make_plan(parse("--precision", "bf16", *flags.split()), caps)
    assert "bf16" not in make_plan(parse("--compare", *flags.split()), caps).variants


@pytest.mark.parametrize(
    "library, flags", [("weak", ""), ("strong", ""), ("rtx", ""), ("rtx", "--gpu-arch 80"), ("rtx", "--gpu-arch 80 120")]
)
def test_bf16_goes_where_both_have_it(library, flags):
    caps = dataclasses.replace(LIBRARIES[library], gpu_arch="8.0")
    plan = make_plan(parse("--precision", "bf16", *flags.split()), caps)
    assert plan.bf16 and plan.variants == ("bf16",) and plan.route is Route.STRONG


def test_best_is_timed_or_estimated_from_the_engines_own_plans():
    assert make_plan(parse("--precision", "best", "--calibration-dir", "d"), NO_GPU).by_plan
    assert not make_plan(parse("--precision", "int8", "--no-baseline"), NO_GPU).by_plan
    assert not make_plan(parse("--precision", "best"), with_gpu("rtx", "8.9")).by_plan, "an engine that runs here is timed"
    assert not plan_for("weak", "--precision", "best").by_plan
