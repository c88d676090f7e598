"""Stage 'probe': the library and the machine, and what the flags mean with them."""

from __future__ import annotations

from onnx2trt.base.errors import having_found
from onnx2trt.conversion.run import Run
from onnx2trt.model.preflight import check_file
from onnx2trt.plan.effects import Effect
from onnx2trt.plan.plan import Plan, make_plan
from onnx2trt.report.described import describe_environment
from onnx2trt.report.result import Environment
from onnx2trt.trt.library import Library, capabilities, load_library
from onnx2trt.trt.plugins import load_plugins


def probe(args, run: Run, backend: str = "auto") -> tuple[Library, Plan, Environment]:
    """Load the library, ask the machine, decide everything that flags decide.

    Args:
        args: the parsed command line.
        backend: the library that is needed, where --backend names none.

    Raises:
        ConversionError: MACHINE, or MODEL where --onnx is no file (cheaper to see than a library is to load).
    """
    with run.stage("probe", "looking at library and machine"):
        check_file(args.onnx)
        library = load_library(backend if args.backend == "auto" else args.backend)
        caps = capabilities(library)
        environment = describe_environment(caps)
        with having_found({"environment": environment}):
            plan = make_plan(args, caps)
            load_plugins(library, plan.build.plugins, run.console.library)
    if caps.backend == "tensorrt" and not (args.timing_cache or caps.cache_folder):
        run.console.warn("kernel timings are not kept: there is no cache folder, neither by XDG_CACHE_HOME nor in a home")
    for flag, cell in plan.effects:
        if cell.effect is Effect.TRANSLATED:  # what has no effect is said once, with what else plays no part
            run.console.info(f"{flag}: {cell.effect.value}: {cell.note}")
    return library, plan, environment
