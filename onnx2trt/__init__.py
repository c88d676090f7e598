"""Turn an ONNX model into a TensorRT engine that is proven to be what was asked for.

    import onnx2trt

    result = onnx2trt.convert("model.onnx", precision="int8", calibration_dir="images/")
    print(result.status, result.engine.path, result.precision.int8_mac_share)

Importing the package loads nothing heavy; each call does its work in a child process.
"""

from onnx2trt.base.errors import ConversionError, ExitCode

__version__ = "0.1.0"  # read without importing, by pyproject.toml
__all__ = ["ConversionError", "ExitCode", "Options", "Result", "convert", "inspect"]

LAZY = {"convert": "api", "inspect": "api", "Options": "api", "Result": "report.result"}  # --help needs none of them


def __getattr__(name: str):
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{LAZY[name]}"), name)
