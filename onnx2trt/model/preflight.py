"""First look at the --onnx file: everything that can be refused before long work, cheap checks first."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.files import feed
from onnx2trt.base.model_info import STANDARD_DOMAINS, ModelInfo, TensorSpec, dims
from onnx2trt.base.words import listed
from onnx2trt.model.counted import check_counts, check_functions, check_names, check_sparse
from onnx2trt.model.external_data import all_tensors, byte_count, check_tensors, named_tensors
from onnx2trt.model.nodes import all_nodes
from onnx2trt.model.operators import QUANTIZERS
from onnx2trt.model.structure import check_structure, true_inputs

PROTOBUF_LIMIT = 2**31 - 1  # bytes of one message; larger models keep their weights in external data
INPUT_DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")
FLOATS = tuple(getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"))
LIFTED = ("bfloat16", "float64", "float8_e4m3fn")  # these become float32: rewrite/adopt.py


def preflight(path: str, plugins: bool = False) -> tuple[onnx.ModelProto, ModelInfo]:
    """Read and check a model.

    Args:
        path: the .onnx file; external data is looked for beside it.
        plugins: see check_structure.

    Returns:
        The model with all its data in memory, and what was found in it.

    Raises:
        ConversionError: MODEL, naming the file and the node, tensor or value at fault.
    """
    check_file(path)
    model = _parse(path)
    check_names(model, path)
    _check_versions(model, path)
    check_structure(model, path, plugins)
    check_functions(model, path)
    check_counts(model, path)
    inputs = _specs(true_inputs(model.graph), "input", path)
    outputs = _outputs(model, path)
    external = check_tensors(model, path)
    with ThreadPoolExecutor(1) as beside:
        identity = beside.submit(_identity, (path, *external))
        _load_external(model, path)
        check_sparse(model, path)
        warnings = (*_general_warnings(model, inputs), *_check_weights(model, path))
    sha256, size = identity.result()
    info = ModelInfo(
        path=path,
        sha256=sha256,
        bytes=size,
        opset=default_opset(model),
        inputs=inputs,
        outputs=outputs,
        nodes=len(model.graph.node),
        quantized=_is_quantized(model),
        half=any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in all_tensors(model))
        or any(spec.dtype == "float16" for spec in (*inputs, *outputs)),
        warnings=warnings,
        metadata={entry.key: entry.value for entry in model.metadata_props},
        external=tuple(external),
    )
    return model, info


def look_again(info: ModelInfo, model: onnx.ModelProto, remarks: tuple[str, ...]) -> ModelInfo:
    """What is known of a file, once its model was rewritten.

    Args:
        remarks: what was changed, for the user.
    """
    outputs = _outputs(model, info.path)
    return replace(info, outputs=outputs, quantized=_is_quantized(model), warnings=(*info.warnings, *remarks), adopted=True)


def _is_quantized(model: onnx.ModelProto) -> bool:
    return any(node.op_type in QUANTIZERS for node in all_nodes(model.graph))


def _outputs(model: onnx.ModelProto, path: str) -> tuple[TensorSpec, ...]:
    """Each once, however often it is listed."""
    return _specs({value.name: value for value in model.graph.output}.values(), "output", path)


def check_file(path: str) -> None:
    """Refuse what is no ONNX file by its looks, without reading it whole."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ConversionError(f"{path} is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}", code=ExitCode.MODEL)
        with open(path, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        hint = "Check the path given with --onnx." if isinstance(error, FileNotFoundError) else ""
        raise ConversionError(f"cannot read {path}: {error.strerror}", hint=hint, code=ExitCode.MODEL) from None
    if not head:
        raise ConversionError(f"{path} is empty", hint="Export or download the model again.", code=ExitCode.MODEL)
    if head.startswith(b"version https://git-lfs"):
        raise ConversionError(
            f"{path} is a Git LFS pointer, not the model itself", hint="Fetch the model with: git lfs pull", code=ExitCode.MODEL
        )
    if head.lstrip().lower().startswith((b"<html", b"<!doctype", b"<?xml")):
        raise ConversionError(
            f"{path} is a web page, not a model", hint="The download was answered with an error page: download again.", code=ExitCode.MODEL
        )
    if status.st_size > PROTOBUF_LIMIT:
        raise ConversionError(
            f"{path} has {status.st_size} bytes; one ONNX file cannot exceed {PROTOBUF_LIMIT}",
            hint="Save the model with external data: onnx.save_model(model, path, save_as_external_data=True)",
            code=ExitCode.MODEL,
        )


def _load_external(model: onnx.ModelProto, path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        for tensor in all_tensors(model):  # onnx's own loop leaves out sparse tensors
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                if not any(entry.key == "length" for entry in tensor.external_data) and byte_count(tensor) is not None:
                    tensor.external_data.add(key="length", value=str(byte_count(tensor)))  # else onnx reads on to the end of the file
                onnx.external_data_helper.load_external_data_for_tensor(tensor, folder)
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
    except Exception as error:  # onnx raises its checker's errors, OSError or ValueError here
        raise ConversionError(f"{path}: external data cannot be loaded: {error}", code=ExitCode.MODEL) from error


def _parse(path: str) -> onnx.ModelProto:
    try:
        return onnx.load(path, format="protobuf", load_external_data=False)  # the suffix would decide else
    except (DecodeError, ValueError, RuntimeError) as error:
        raise ConversionError(
            f"{path} is not an ONNX model, or is cut off or damaged: {error}",
            hint="Export or download the model again, and compare its size and checksum with the source.",
            code=ExitCode.MODEL,
        ) from error
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror or error}", code=ExitCode.MODEL) from error


def _specs(values, role: str, path: str) -> tuple[TensorSpec, ...]:
    specs = tuple(_spec(value, role, path) for value in values)
    twice = [name for name, count in Counter(spec.name for spec in specs).items() if count > 1 or not name]
    if twice:
        raise ConversionError(f"{path}: {role} name {twice[0]!r} is empty or occurs twice", code=ExitCode.MODEL)
    return specs


def _spec(value: onnx.ValueInfoProto, role: str, path: str) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ConversionError(
            f"{path}: {role} {value.name!r} is {'without a type' if kind is None else 'a ' + kind.replace('_type', '')}, not a tensor",
            hint="TensorRT takes and gives tensors only.",
            code=ExitCode.MODEL,
        )
    tensor = value.type.tensor_type
    dtype = dtype_name(tensor.elem_type)
    dtype = "float32" if dtype in LIFTED else dtype
    if dtype not in INPUT_DTYPES:
        advice = {"string": "Export the model without text processing."}
        raise ConversionError(
            f"{path}: {role} {value.name!r} is {dtype}, which TensorRT does not take; it takes {', '.join(INPUT_DTYPES)}",
            hint=advice.get(dtype, f"Insert a Cast at that {role} before exporting."),
            code=ExitCode.MODEL,
        )
    if not tensor.HasField("shape"):
        return TensorSpec(value.name, None, dtype)
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else (dim.dim_param or None) for dim in tensor.shape.dim
    )
    if role == "input" and any(isinstance(dim, int) and dim >= 2**31 for dim in shape):
        raise ConversionError(
            f"{path}: input {value.name!r} has shape {dims(shape)}; every size must be from 0 to 2147483647",
            hint="Export the model with real sizes, or with names for those that are free.",
            code=ExitCode.MODEL,
        )
    return TensorSpec(value.name, shape, dtype)


def dtype_name(elem_type: int) -> str:
    """numpy's name of a TensorProto.DataType; bfloat16 and the 8-bit floats by their ONNX name in lower case."""
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type)).name if elem_type != onnx.TensorProto.STRING else "string"
    except (KeyError, TypeError):
        return f"of unknown type {elem_type}"


def _identity(paths: tuple[str, ...]) -> tuple[str, int]:
    """SHA-256 over the files one after another, and their total size."""
    digest, size = hashlib.sha256(), 0
    for path in paths:
        size += feed(digest, path)
    return digest.hexdigest(), size


def default_opset(model: onnx.ModelProto) -> int:
    """Version of the default operator set; 0 where the model imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def _check_versions(model: onnx.ModelProto, path: str) -> None:
    """Versions are counted from 1; what no integer of onnx's own holds is damage."""
    odd = [entry for entry in model.opset_import if not -(2**31) < entry.version < 2**31]
    if odd:
        raise ConversionError(
            f"{path} imports opset {odd[0].version} of domain {odd[0].domain!r}, which there cannot be",
            hint="This is a damaged file: export it again.",
            code=ExitCode.MODEL,
        )


def _general_warnings(model: onnx.ModelProto, inputs: tuple[TensorSpec, ...]) -> Iterator[str]:
    if not inputs:
        yield "the graph has no inputs: its outputs are constants"
    for spec in inputs:
        if 0 in (spec.shape or ()):
            what = f"input {spec.name!r} is {dims(spec.shape)}, so it holds nothing"
            yield f"{what}: if a size shall be free, export the model with a name for it"
    newest = onnx.defs.onnx_opset_version()
    if default_opset(model) > newest:
        yield f"opset {default_opset(model)} is newer than {newest}, the newest known here: operators may mean something else"
    if model.ir_version > onnx.IR_VERSION:
        yield f"ONNX IR version {model.ir_version} is newer than {onnx.IR_VERSION}, the newest known here"


def _check_weights(model: onnx.ModelProto, path: str) -> Iterator[str]:
    """Refuse NaN in weights, warn of infinities (attention masks hold them on purpose)."""
    infinite: dict[str, int] = {}
    for where, tensor in named_tensors(model):
        if tensor.data_type not in FLOATS:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if np.isfinite(values).all():
            continue
        bad = int(np.isnan(values).sum())
        if bad:
            raise ConversionError(
                f"{path}: weights {where} hold {bad} NaN among {values.size} values",
                hint="The training diverged or the file is damaged: export the model again.",
                code=ExitCode.MODEL,
            )
        infinite[where] = int(np.isinf(values).sum())
    if infinite:
        total = sum(infinite.values())
        yield f"weights {listed(list(infinite), 3)} hold {total} infinite value{'s' * (total > 1)}"
