"""The flags of precision and INT8 calibration."""

from __future__ import annotations

from onnx2trt.plan import argument_types as types

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "best")
# Written into the ONNX, as a strongly typed network, on every library. By the flag, TensorRT 10.6 computed networks in FP32 that were to be
# BF16 (as in TensorRT #4221), and NVIDIA advises strong typing for FP8 (Model-Optimizer #118).
WRITTEN = ("bf16", "fp8")
EIGHT_BIT = ("int8", "fp8")  # precisions whose layers are calibrated
FP8_METHODS = ("auto", "minmax", "percentile", "mse")  # entropy is made for the 128 even levels of INT8
FP8_FROM = 8.9  # compute capability
LAYER_PRECISIONS = {  # --precision -> what --layer-precisions may name beside it
    "fp16": ("fp32", "fp16"),
    "bf16": ("fp32", "bf16"),
    "int8": ("fp32", "fp16"),
    "fp8": ("fp32", "fp16"),
    "best": ("fp32", "fp16"),
}
CONSTRAINTS = ("prefer", "obey", "none")
QUANTIZATIONS = ("auto", "calibrator", "qdq")
QUANTIZATION_EFFORTS = ("fast", "default", "best")
CALIBRATION_METHODS = ("auto", "entropy", "minmax", "percentile", "mse")


def add_precision_flags(group) -> None:
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        help="precision of the engine; best: whatever is fastest on this GPU within --max-accuracy-drop (default: fp16)",
    )
    group.add_argument(
        "--compare",
        action="store_true",
        help="build FP32, FP16, INT8, BF16 and FP8, as far as they are to be had, and show them side by side",
    )
    group.add_argument(
        "--no-baseline", action="store_true", help="do not build an FP16 engine beside an INT8 or FP8 one to say which of them is faster"
    )
    group.add_argument(
        "--layer-precisions",
        metavar="PATTERN:PRECISION",
        type=types.layer_precisions,
        nargs="+",
        action="extend",
        default=[],
        help="precision of the ONNX nodes whose names match, as '*/attn/*:fp32' (fp32, or fp16, or bf16 with --precision bf16); the last "
        "match counts",
    )
    group.add_argument(
        "--precision-constraints",
        choices=CONSTRAINTS,
        default="prefer",
        help="how far layer precisions bind TensorRT: prefer, obey (or fail), none (default: prefer)",
    )
    group.add_argument(
        "--disable-strict-types",
        action="store_true",
        help="no layer is kept in a higher precision: neither by --layer-precisions nor for its measured range or accuracy",
    )
    group.add_argument(
        "--strongly-typed",
        action="store_true",
        help="TensorRT 10: write the precision into the ONNX instead of setting builder flags, as TensorRT 11 does",
    )
    group.add_argument(
        "--io-types",
        metavar="NAME:TYPE",
        type=types.io_types,
        nargs="+",
        action="extend",
        default=[],
        help="types of floating-point inputs and outputs, as input:fp16 (default: as in the ONNX)",
    )
    group.add_argument("--tf32", action="store_true", help="allow TF32 for FP32 layers (default: real FP32)")


def add_calibration_flags(group) -> None:
    group.add_argument("--calibration-dir", metavar="DIR", help="folder of images, or of .npz / .npy files, to calibrate INT8 with")
    group.add_argument(
        "--calibration-samples",
        metavar="N",
        type=types.positive_int,
        default=500,
        help="samples to use, evenly spaced over the sorted names; rows of .npz and .npy files count (default: 500)",
    )
    group.add_argument(
        "--calibration-cache",
        metavar="FILE",
        help="TensorRT calibration cache: read where it exists, written where not, with two files beside it (.json, .fit.npz); "
        "works without --calibration-dir",
    )
    group.add_argument(
        "--accept-stale-cache",
        action="store_true",
        help="use a calibration cache although model, data, preprocessing or method have changed since",
    )
    group.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        default="auto",
        help="TensorRT's own calibrator, or Q/DQ in the ONNX (default: auto: the faster one where engines can be timed, else the "
        "calibrator where the library has one)",
    )
    group.add_argument(
        "--calibration-method",
        choices=CALIBRATION_METHODS,
        default="auto",
        help="how a scale is chosen from a tensor's values (default: auto: the one with the smallest measured error)",
    )
    group.add_argument(
        "--quantization-effort",
        choices=QUANTIZATION_EFFORTS,
        default="default",
        help="time for accuracy and speed: fast only chooses scales and layers, default also equalizes channels, fits weights and "
        "times up to four INT8 engines on a GPU, best measures the layers on more samples and up to seven engines (default: default)",
    )
