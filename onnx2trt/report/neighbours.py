"""Which samples an output takes for alike, as the model and as the engine see it: what embeddings are used for."""

from __future__ import annotations

import numpy as np

from onnx2trt.compare.evidence import Evidence, Vectors

FEWEST = 3  # samples, below which each has the same neighbour anyway
TIE = 1e-3  # of the cosine, up to which two samples are equally near
ROWS = 8


def neighbours(evidence: Evidence) -> list[dict]:
    """For each output that is a vector: how many samples keep their nearest one, and those that do not."""
    return [_neighbours(one) for one in evidence.vectors if len(one.paths) >= FEWEST]


def _neighbours(vectors: Vectors) -> dict:
    cosines = [_cosines(values) for values in (vectors.reference, vectors.candidate)]
    nearest = [alike.argmax(1) for alike in cosines]
    places = np.arange(len(vectors.paths))
    same = cosines[0][places, nearest[1]] >= cosines[0][places, nearest[0]] - TIE
    order = np.lexsort((-cosines[0].max(1), same))[:ROWS]
    rows = [
        {
            "path": vectors.paths[index],
            "model": (vectors.paths[nearest[0][index]], float(cosines[0][index].max())),
            "engine": (vectors.paths[nearest[1][index]], float(cosines[1][index].max())),
            "same": bool(same[index]),
        }
        for index in order
    ]
    return {"output": vectors.output, "origin": vectors.origin, "samples": len(vectors.paths), "same": int(same.sum()), "rows": rows}


def _cosines(values: np.ndarray) -> np.ndarray:
    """[samples, samples]; a sample is no neighbour of its own."""
    values = np.nan_to_num(values.astype(np.float64))
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -2.0)
    return alike
