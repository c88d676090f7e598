"""The only import of TensorRT, and the only place that knows how its versions differ."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import re
from dataclasses import dataclass
from types import ModuleType

from onnx2trt.base.cache_folders import user_cache_folder
from onnx2trt.base.driver import Driver, probe_driver
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import HELD, limited
from onnx2trt.plan.capabilities import REFIT_SYMBOLS, Capabilities

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {"tensorrt": "pip install 'tensorrt>=10,<11' cuda-python", "tensorrt-rtx": "pip install tensorrt-rtx"}
NEEDED = ("__version__", "Logger", "Builder", "OnnxParser", "BuilderFlag")


@dataclass(frozen=True)
class Library:
    """A TensorRT that can be called: its Python module, and what it is."""

    backend: str  # tensorrt | tensorrt-rtx
    trt: ModuleType

    @property
    def version(self) -> str:
        return self.trt.__version__

    @property
    def weak_typing(self) -> bool:
        """FP16 / INT8 builder flags work. RTX 1.4 has the names, but refuses them: only the calibrator member tells."""
        return hasattr(self.trt.BuilderFlag, "FP16") and hasattr(self.trt.IBuilderConfig, "int8_calibrator")

    @property
    def cache_version(self) -> str:
        """The version as calibration caches carry it (NV_TENSORRT_VERSION): 100600 for 10.6.0, 8601 for 8.6.1."""
        major, minor, patch = (int(part) for part in re.findall(r"\d+", self.version)[:3])
        return str(major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch)

    @property
    def before_10(self) -> bool:
        """TensorRT 8.6 or 9, whose parser takes Q/DQ in one form alone (rewrite.for_tensorrt8)."""
        return self.backend == "tensorrt" and int(self.version.split(".")[0]) < 10

    def calibrator_bases(self) -> dict[str, type]:
        """Method -> calibrator class; empty where the library has none that work (RTX 1.4 has the classes only)."""
        if not self.weak_typing:
            return {}
        names = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}
        return {method: getattr(self.trt, name) for method, name in names.items() if hasattr(self.trt, name)}

    def network_flags(self, strongly_typed: bool) -> int:
        """Bit mask for create_network; the bits moved between versions, so it is made from the names that exist."""
        flags = self.trt.NetworkDefinitionCreationFlag
        name = "STRONGLY_TYPED" if strongly_typed and hasattr(flags, "STRONGLY_TYPED") else "EXPLICIT_BATCH"
        return 1 << int(getattr(flags, name)) if hasattr(flags, name) else 0


def load_library(backend: str) -> Library:
    """Import TensorRT.

    Args:
        backend: tensorrt, tensorrt-rtx, or auto: tensorrt where it is installed, else tensorrt-rtx.

    Raises:
        ConversionError: MACHINE, where it is not installed, or installed only in part.
    """
    if backend == "auto":
        backend = "tensorrt" if _installed("tensorrt") else "tensorrt-rtx"
        if not _installed(MODULES[backend]):
            raise ConversionError(
                "neither tensorrt nor tensorrt-rtx is installed in this Python",
                hint=f"{INSTALL['tensorrt-rtx']} (builds without a GPU), or {INSTALL['tensorrt']}",
                code=ExitCode.MACHINE,
            )
    name = MODULES[backend]
    if not _installed(name):
        raise ConversionError(f"--backend {backend} is not installed in this Python", hint=INSTALL[backend], code=ExitCode.MACHINE)
    try:
        with HELD.library_starts():
            module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ConversionError(
            f"{backend} is installed, but cannot be loaded: {error}",
            hint=limited() or f"Its libraries are missing or do not fit: install it again ({INSTALL[backend]}).",
            code=ExitCode.MACHINE,
        ) from error
    missing = [symbol for symbol in NEEDED if not hasattr(module, symbol)]
    if missing:
        where = getattr(module, "__file__", None) or list(getattr(module, "__path__", ["?"]))[0]
        raise ConversionError(
            f"the module {name} at {where} is not TensorRT: it has no {', '.join(missing)}",
            hint=f"Remove a folder of that name from the Python path, or install again ({INSTALL[backend]}).",
            code=ExitCode.MACHINE,
        )
    # TensorRT logs while it holds a lock that its destructors take. The cyclic collector may start within the logger's Python code and
    # destroy an older Builder there: a deadlock, met on 10.15. So it only runs where stages begin (conversion.run), never in between.
    gc.disable()
    gc.freeze()  # and then need not look at what the libraries have made while they were loaded: 20 ms each time
    return Library(backend, module)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def capabilities(library: Library, driver: Driver | None = None) -> Capabilities:
    """What this library can do on this machine.

    Args:
        driver: for tests; probed where None.
    """
    driver = driver or probe_driver()
    trt = library.trt
    return Capabilities(
        backend=library.backend,
        version=library.version,
        weak_typing=library.weak_typing,
        calibrators=hasattr(trt, "IInt8EntropyCalibrator2") and library.weak_typing,
        compute_capabilities=frozenset(name for name in _members(trt, "ComputeCapability") if re.fullmatch(r"SM\d+", name)),
        tactic_sources=frozenset(_members(trt, "TacticSource")),
        hardware_levels=frozenset(_members(trt, "HardwareCompatibilityLevel")),
        fp8="FP8" in _members(trt, "DataType") and "STRONGLY_TYPED" in _members(trt, "NetworkDefinitionCreationFlag"),
        refits=frozenset(name for name in REFIT_SYMBOLS if hasattr(trt, name) or name in _members(trt, "BuilderFlag")),
        gpu=driver.gpu,
        gpu_arch=driver.compute_capability,
        driver=driver.version,
        driver_problem=driver.problem,
        cache_folder=user_cache_folder(),
        bf16="BF16" in _members(trt, "DataType"),
    )


def _members(trt: ModuleType, enum: str) -> tuple[str, ...]:
    return tuple(getattr(getattr(trt, enum, None), "__members__", {}))
