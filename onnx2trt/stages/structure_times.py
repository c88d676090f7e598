"""What was measured of the INT8 engines of a model, remembered so that the same conversion builds the fastest one alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from onnx2trt.conversion import remembered
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.plan import key as identity
from onnx2trt.plan.structures import Structure
from onnx2trt.report.built import VariantRow

FORMAT = 3  # raise it when engines change: then what was measured of older ones is measured again


@dataclass(frozen=True)
class Fastest:
    """The engine that was delivered."""

    structure: str
    slow: dict[str, str] = field(default_factory=dict)  # node that was FP16 for being slow in INT8 -> reason
    own_weights: list[str] = field(default_factory=list)  # nodes that TensorRT did not compute in INT8 (plan.structures.Structure)

    def of(self, structure: Structure) -> Structure:
        """The structure of this name, as it was delivered."""
        return replace(structure, own_weights=frozenset(self.own_weights))


@dataclass(frozen=True)
class Measured:
    """Engines of an earlier run, and the fastest; None where that run did not come to its end."""

    rows: tuple[VariantRow, ...] = ()
    fastest: Fastest | None = None

    def still_to_build(self, structures: tuple[str, ...]) -> tuple[str, ...]:
        """Those that are not known to be slower than another, or not to work, in the same order."""
        known = {row.structure: row for row in self.rows if row.structure in structures}
        best = min((row.p50_ms for row in known.values() if not row.error and row.p50_ms), default=None)
        lost = {name for name, row in known.items() if row.error or best is not None and row.p50_ms and row.p50_ms > best}
        left = tuple(name for name in structures if name not in lost)
        return left or structures  # nothing has worked: then it is tried again


def recall(job: Job, run: Run) -> Measured:
    """What an earlier run of the same model, data, options and versions on this GPU has measured."""
    path = _path(job)
    try:
        kept = remembered.read(path)
        rows = tuple(map(_dated, (VariantRow(**row) for row in kept["rows"]), [str(kept["measured"])] * len(kept["rows"])))
        fastest = Fastest(**kept["fastest"]) if kept["fastest"] else None
    except remembered.BROKEN:
        return Measured()
    run.console.info(f"INT8 engines were measured on {kept['measured']}: what was slower is not built again ({path})")
    return Measured(rows, fastest)


def remember(job: Job, measured: Measured, run: Run) -> None:
    """Keep what was measured; a folder that cannot be written is no fault."""
    rows, fastest = [asdict(row) for row in measured.rows], measured.fastest and asdict(measured.fastest)
    remembered.keep(_path(job), {"rows": rows, "fastest": fastest}, run)


def _dated(row: VariantRow, date: str) -> VariantRow:
    """A row that is of an earlier run still has its own date."""
    return replace(row, measured_on=row.measured_on or date)


def _path(job: Job) -> str | None:
    """The file of this conversion; None where nothing is to be kept (--timing-cache none)."""
    key = {"format": FORMAT, **{name: job.inputs.get(name) for name in ("model", "data", "versions")}}
    return remembered.place_of(job, "structures", {**key, "options": identity.options(job.plan)})
