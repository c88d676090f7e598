"""The command line: every flag, its type and its help. Standard library only, so that --help answers at once."""

from __future__ import annotations

from onnx2trt.plan import argument_types as types
from onnx2trt.plan.parser import COMMAND, EXIT_CODES, PROGRAM, Help, Parser, new_parser, version
from onnx2trt.plan.precision_arguments import PRECISIONS, add_calibration_flags, add_precision_flags

EXAMPLE = f"""\
examples:
  {" ".join(COMMAND)} model.onnx --validate test.jpg --report report.html
  {" ".join(COMMAND)} model.onnx --precision int8 --calibration-dir images/

one part of the job alone, each with its own --help:
  {" ".join(COMMAND)} calibrate | preprocess | validate
"""
# what --help shows; --help-all shows all
EVERY_DAY = ("--onnx", "--output", "--precision", "--imgsz", "--max-batch-size", "--calibration-dir", "--validate", "--report", "--json")

HARDWARE_LEVELS = ("none", "ampere_plus", "same_compute_capability")
NO_TIMING_CACHE = "none"
LAYOUTS = ("yolo", "yolov5", "none")  # of --detector
# argparse would print all flags, 40 lines, before the one that says which of them is wrong
USAGE = f"{PROGRAM} MODEL.onnx [--precision {{{','.join(PRECISIONS)}}}] [options] | --help"
DESCRIPTION = "Turn an ONNX model into a TensorRT engine that is proven to be what was asked for."


def build_parser() -> Parser:
    """The parser of all flags, in groups; defaults stand in the help text."""
    parser = new_parser(PROGRAM, USAGE, DESCRIPTION, f"{EXIT_CODES}\n{EXAMPLE}", add_help=False)
    parser.set_defaults(door=None, named={})
    _add_model_flags(parser.add_argument_group("model and engine"))
    _add_shape_flags(parser.add_argument_group("inputs and shapes"))
    add_precision_flags(parser.add_argument_group("precision"))
    _add_build_flags(parser.add_argument_group("build"))
    add_calibration_flags(parser.add_argument_group("INT8 calibration"))
    _add_preprocessing_flags(parser.add_argument_group("image preprocessing (calibration and validation alike)"))
    _add_validation_flags(parser.add_argument_group("validation"))
    _add_result_flags(parser.add_argument_group("result and messages"))
    return parser


def _add_model_flags(group) -> None:
    source = group.add_mutually_exclusive_group()  # the parser itself says that one of them is needed
    source.add_argument("--onnx", metavar="FILE", help="the ONNX model; the flag itself may be left out")
    source.add_argument(
        "--inspect",
        metavar="ENGINE",
        help="build nothing: say what is in this engine file, and whether it loads here; goes with --json and --plugins only",
    )
    group.add_argument("-o", "--output", metavar="FILE", help="the engine to write (default: the model's name + .engine, in this folder)")
    group.add_argument(
        "--refit",
        metavar="ENGINE",
        help="build nothing: put the weights of --onnx, a model of the same network, into this engine, which --refittable has built",
    )
    group.add_argument(
        "--backend",
        choices=("auto", "tensorrt", "tensorrt-rtx"),
        default="auto",
        help="library to build with (default: auto: tensorrt where it is installed, else tensorrt-rtx)",
    )
    group.add_argument(
        "--gpu-arch",
        metavar="ARCH",
        type=types.gpu_archs,
        nargs="+",
        action="extend",
        default=[],
        help="TensorRT-RTX: compute capabilities to build for, as sm_89, 89 or 8.9 (default: portable, 8.0 and newer)",
    )
    group.add_argument(
        "--workspace-size",
        metavar="GB",
        type=types.gigabytes,
        default=4.0,
        help="upper bound of scratch memory in GB, 2**30 bytes each (default: 4)",
    )


def _add_build_flags(group) -> None:
    group.add_argument(
        "--builder-optimization-level",
        type=int,
        choices=range(6),
        help="time spent on finding fast kernels (default: the library's, 3)",
    )
    group.add_argument(
        "--timing-cache",
        metavar="FILE",
        help="kernel timings: read where it exists, written after the build; none keeps no timings "
        "(default: a file for this library and GPU in the user's cache folder)",
    )
    group.add_argument(
        "--tactic-sources",
        metavar="NAMES",
        type=types.names,
        help="the optional tactic sources to use, as CUBLAS,CUDNN (default: the library's)",
    )
    group.add_argument("--disable-tactic-sources", action="store_true", help="build without any of TensorRT's optional tactic sources")
    group.add_argument(
        "--dla-core", metavar="N", type=types.count, help="run on this DLA where possible, on the GPU elsewhere (Jetson, DRIVE)"
    )
    group.add_argument("--plugins", metavar="LIB", nargs="+", action="extend", default=[], help="shared libraries with TensorRT plugins")
    group.add_argument(
        "--version-compatible", action="store_true", help="an engine that later TensorRT versions of the same major load, too"
    )
    group.add_argument("--refittable", action="store_true", help="an engine that --refit can give other weights, without a build")
    group.add_argument(
        "--strip-weights",
        action="store_true",
        help="an engine without the weights that --refit puts in, small to send; it runs after that (--refittable: with others, too)",
    )
    group.add_argument(
        "--hardware-compatibility-level",
        choices=HARDWARE_LEVELS,
        default="none",
        help="an engine for other GPUs than this one, at some cost in speed (default: none)",
    )


def _add_shape_flags(group) -> None:
    group.add_argument(
        "--imgsz",
        metavar="SIZE",
        type=types.image_size,
        help="height and width of images where the model leaves them free: 640, or 480x640 (HEIGHTxWIDTH)",
    )
    group.add_argument(
        "--max-batch-size", metavar="N", type=types.positive_int, default=1, help="largest batch of a free batch dimension (default: 1)"
    )
    for bound, meaning in (("min", "smallest"), ("opt", "usual (tuned for, calibrated and timed at)"), ("max", "largest")):
        group.add_argument(
            f"--{bound}-shapes",
            metavar="NAME:DIMS",
            type=types.least_shapes if bound == "min" else types.shapes,
            nargs="+",
            action="extend",
            default=[],
            help=f"{meaning} shape of dynamic inputs, as input:1x3x224x224[,other:1x10]; NAME may be left out for a single input",
        )
    group.add_argument(
        "--profile",
        metavar="NAME=INPUT:MIN:OPT:MAX",
        type=types.profile,
        nargs="+",
        action="extend",
        default=[],
        help="several optimization profiles in one engine, as small=x:1x3x224x224:4x3x224x224:8x3x224x224 large=x:1x3x640x640; the "
        "first is the one that is calibrated and compared",
    )
    group.add_argument(
        "--shape-values",
        metavar="NAME:VALUES",
        type=types.shape_values,
        nargs="+",
        action="extend",
        default=[],
        help="values of an integer input that decide about shapes, as size:224x224, or with a range as size:MIN:OPT:MAX (default: "
        "those in the data)",
    )
    group.add_argument(
        "--bind-input",
        metavar="NAME=VALUE",
        type=types.bindings,
        nargs="+",
        action="extend",
        default=[],
        help="make this input a constant, and fold what hangs on it: a number, true or false, a list such as [1,2], or a .npy file",
    )


def _add_preprocessing_flags(group) -> None:
    group.add_argument(
        "--input-range", choices=(1, 255), type=int, default=1, help="pixels are scaled to 0..1 or kept at 0..255 (default: 1)"
    )
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}",
            metavar="X",
            type=types.numbers,
            nargs="+",
            action="extend",
            default=[],
            help=f"{name} of each channel (one number for all), in the units of --input-range and the model's channel order",
        )
    group.add_argument("--color", choices=("rgb", "bgr", "gray"), help="channel order of the model (default: rgb; gray for one channel)")
    group.add_argument(
        "--resize",
        choices=("stretch", "letterbox", "crop"),
        default="stretch",
        help="how an image becomes the input's size (default: stretch; letterbox pads with 114, crop cuts the centre)",
    )


def _add_validation_flags(group) -> None:
    group.add_argument(
        "--validate",
        metavar="PATH",
        action="append",
        default=[],
        help="what the engine is validated on: an image (or .npz / .npy), or a folder of them; both may be given",
    )
    group.add_argument("--test-image", metavar="FILE", help="--validate for a file alone")
    group.add_argument("--validation-dir", metavar="DIR", help="--validate for a folder alone")
    group.add_argument(
        "--max-accuracy-drop",
        metavar="PERCENT",
        type=types.percent,
        default=1.0,
        help="largest accepted difference from the ONNX model, in percent (default: 1)",
    )
    group.add_argument(
        "--metric",
        metavar="[OUTPUT:]METRIC",
        type=types.metrics,
        action="append",  # one each: the candidate of validate.py may stand behind it
        default=[],
        help="how outputs are compared: values, top1, argmax, mask:T (overlap of what is above T, as mask:0.5), equal, rows, cosine or "
        "noise; of one output as scores:top1,boxes:values (default: auto: by what each output does over the data). An output that "
        "a metric for all does not fit keeps auto",
    )
    group.add_argument(
        "--min-int8-share",
        metavar="PERCENT",
        type=types.share_percent,
        default=10.0,
        help="least share of the multiply-accumulates that INT8 layers must do for --precision int8 to count as delivered (default: 10)",
    )
    group.add_argument("--validate-only", metavar="ENGINE", help="build nothing: load this engine, compare it with --onnx, and time it")
    group.add_argument("--no-validate", action="store_true", help="build only; the result says not_validated")
    group.add_argument("--require-execution", action="store_true", help="fail where the engine cannot be executed here (no fitting GPU)")
    group.add_argument("--keep-failed", action="store_true", help="keep an engine that failed validation as OUTPUT.rejected")


def _add_result_flags(group) -> None:
    group.add_argument("--save-onnx", metavar="FILE", help="write the prepared ONNX model (FP16 or Q/DQ) that the engine is built from")
    group.add_argument("--triton-repository", metavar="DIR", help="also write DIR/NAME/1/model.plan and config.pbtxt, for a Triton server")
    group.add_argument("--json", metavar="FILE", help="write the result as JSON; - for stdout, which then carries nothing else")
    group.add_argument(
        "--report",
        metavar="FILE",
        help="write the result as one HTML page with images and plots; also where the conversion fails",
    )
    group.add_argument(
        "--detector",
        choices=LAYOUTS,
        help="how the report reads boxes out of the outputs: yolo (v8 and later), yolov5, none (default: as the model's metadata say)",
    )
    group.add_argument(
        "--skip-unchanged",
        action="store_true",
        help="build nothing where the engine is there, made from the same model, options, data and versions; the result is the former one",
    )
    group.add_argument("--dry-run", action="store_true", help="check everything and print the plan; build nothing")
    volume = group.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="count", default=0, help="details, TensorRT's warnings, tracebacks; -vv all messages")
    volume.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors, and what --json - asks for")
    group.add_argument("-h", "--help", action=Help, parser=_short_parser, help="the flags of every day")
    group.add_argument("--help-all", action=Help, help="all flags")
    group.add_argument("--version", action=Help, text=version, help="the version of this tool")


def _short_parser(whole: Parser) -> Parser:
    """For --help: the flags of every day."""
    parser = new_parser(PROGRAM, f"{PROGRAM} MODEL.onnx [options]", DESCRIPTION, f"{EXAMPLE}\n{EXIT_CODES}", add_help=False)
    group = parser.add_argument_group("every day")
    rest = parser.add_argument_group("more")
    for flag in (*EVERY_DAY, "--verbose", "--quiet", "--help-all", "--version"):
        (group if flag in EVERY_DAY else rest)._add_action(whole._option_string_actions[flag])
    return parser
