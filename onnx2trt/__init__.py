"""Turn an ONNX model into a TensorRT engine that is proven to be what was asked for.

    import onnx2trt

    result = onnx2trt.convert("model.onnx", precision="int8", calibration_dir="images/")
    print(result.status, result.engine.path, result.precision.int8_mac_share)

Importing the package loads nothing heavy; each call does its work in a child process.
"""

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.lazy import lazily

__version__ = "0.1.0"  # read without importing, by pyproject.toml
__all__ = ["ConversionError", "ExitCode", "Options", "Result", "convert", "inspect"]

LAZY = {  # --help needs none of them
    **dict.fromkeys(("convert", "inspect", "Options"), f"{__name__}.api"),
    "Result": f"{__name__}.report.result",
}
__getattr__ = lazily(__name__, LAZY)
