"""A model whose tensors were counted, with the branches in place that it always takes: what stands in those counts as well."""

from __future__ import annotations

from onnx2trt.base.model_info import Profile
from onnx2trt.conversion.run import Run
from onnx2trt.model.counted import check_sizes
from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.branches import fold_branches


def count_and_fold(model, profiles: tuple[Profile, ...], path: str, run: Run) -> tuple[object, tuple[str, ...]]:
    """Counted before anything of it is computed, the conditions of branches included, and once more where a branch became part of it.

    Args:
        model: onnx.ModelProto, with all its data in memory; left as it is.
        path: for messages.

    Returns:
        As fold_branches.

    Raises:
        ConversionError: MODEL, as check_sizes.
    """
    remarks = check_sizes(Graph.from_model(model, profiles), profiles, path)
    folded, gone = fold_branches(model, profiles)
    if gone:
        remarks = (*remarks, *check_sizes(Graph.from_model(folded, profiles), profiles, path))
    for remark in dict.fromkeys(remarks):
        run.console.warn(remark)
    return folded, gone
