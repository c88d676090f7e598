"""What a conversion has to work with: a library and the GPU of this machine, or neither."""

from __future__ import annotations

from dataclasses import dataclass

BF16_FROM = 8.0  # compute capability
# builder flags, and what puts the weights of an ONNX model into an engine
REFIT_SYMBOLS = ("REFIT", "REFIT_IDENTICAL", "STRIP_PLAN", "OnnxParserRefitter")
PORTABLE_FROM = 8.0  # compute capability: what TensorRT-RTX builds for when no architecture is named


@dataclass(frozen=True)
class Capabilities:
    """What the installed library and this machine can do; made by trt.library.capabilities."""

    backend: str | None  # tensorrt | tensorrt-rtx; None: NO_LIBRARY
    version: str
    weak_typing: bool
    calibrators: bool
    compute_capabilities: frozenset[str]  # names such as SM89 that the library can build for by name
    tactic_sources: frozenset[str]
    hardware_levels: frozenset[str] = frozenset()  # NONE, AMPERE_PLUS, ...
    refits: frozenset[str] = frozenset()  # of REFIT_SYMBOLS, what the library has
    gpu: str = ""  # name of the first GPU; empty where none answers
    gpu_arch: str = ""  # its compute capability, as 9.0
    driver: str = ""  # highest CUDA version of the driver, as 13.0
    driver_problem: str = ""  # why no GPU answers, in words
    fp8: bool = False  # strongly typed networks, and FP8 among the types
    cache_folder: str = ""  # where files may be kept between runs; empty where there is no place for them

    bf16: bool = False  # the library has the type

    def no_bf16(self, archs: tuple[str, ...]) -> str:
        """Why an engine for these architectures (none: the library's default) cannot compute in BF16; empty where it can.

        Args:
            archs: compute capabilities, as 8.9.
        """
        if self.backend is not None and not self.bf16:
            return f"{self.backend} {self.version} has no BF16, which came with TensorRT 10"
        targets = (self.gpu_arch,) if self.backend == "tensorrt" else archs
        older = [arch for arch in targets if arch and float(arch) < BF16_FROM]
        return f"GPUs of compute capability {', '.join(older)} have no BF16, which came with {BF16_FROM}" if older else ""

    def executes(self, archs: tuple[str, ...]) -> bool:
        """Whether an engine for these architectures (none: the library's default) runs on the GPU of this machine."""
        if not self.gpu:
            return False
        if self.backend == "tensorrt":
            return True
        if archs:
            return self.gpu_arch in archs
        return f"SM{self.gpu_arch.replace('.', '')}" in self.compute_capabilities and float(self.gpu_arch) >= PORTABLE_FROM


# For work that needs none: nothing is built or executed, and what is prepared is what TensorRT 11 and TensorRT-RTX would get
NO_LIBRARY = Capabilities(None, "", False, False, frozenset(), frozenset())
