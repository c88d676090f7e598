"""A model whose tensors were counted, with the branches that it always takes in place and without lists: what is there then counts."""

from __future__ import annotations

from onnx2trt.base.model_info import Profile
from onnx2trt.conversion.run import Run
from onnx2trt.model.counted import check_sizes
from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.branches import fold_branches
from onnx2trt.rewrite.sequences import fold_sequences


def count_and_fold(model, profiles: tuple[Profile, ...], path: str, run: Run) -> tuple[object, tuple[str, ...], tuple[str, ...]]:
    """Counted before anything of it is computed, the conditions of branches included, and once more where something became part of it.

    Args:
        model: onnx.ModelProto, with all its data in memory; left as it is.
        path: for messages.

    Returns:
        (the model, or `model` itself where there is nothing to fold; the names of the If nodes that are gone, and of those on lists)

    Raises:
        ConversionError: MODEL, as check_sizes.
    """
    remarks = check_sizes(Graph.from_model(model, profiles), profiles, path)
    folded, gone = fold_branches(model, profiles)
    folded, lists = fold_sequences(folded, profiles)
    if lists:
        run.console.info(f"{len(lists)} nodes on lists of tensors, which TensorRT lacks, are written as what they give (Sequence..., Loop)")
        folded, more = fold_branches(folded, profiles)
        gone += more
    if gone or lists:
        remarks = (*remarks, *check_sizes(Graph.from_model(folded, profiles), profiles, path))
    for remark in dict.fromkeys(remarks):
        run.console.warn(remark)
    return folded, gone, lists
