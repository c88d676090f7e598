"""What became of a conversion, and of all of them: the JSON of a fleet and its exit code."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field

from onnx2trt.base.errors import ExitCode
from onnx2trt.fleet.tasks import Task

SCHEMA_VERSION = 1
STATES = ("built", "unchanged", "failed", "lost", "not_done", "planned")
WELL = ("built", "unchanged", "planned")
LOG_LINES = 20  # of a conversion that failed, the last ones


@dataclass(frozen=True)
class Outcome:
    """How one conversion ended."""

    state: str  # built | unchanged | failed: the command said no | lost: with its node | not_done: the fleet ended before | planned
    exit_code: int | None = None  # of the command
    status: str | None = None  # of the command's result: validated, simulated, ...
    engine_bytes: int | None = None
    engine_sha256: str | None = None
    precision: str | None = None  # that the engine has
    node: str | None = None  # host that it ran on
    seconds: float | None = None
    message: str = ""
    hint: str = ""
    log: list[str] = field(default_factory=list)  # the command's last lines, where it failed
    attempts: int = 0

    @property
    def failed(self) -> bool:
        return self.state not in WELL


def of_result(result: dict, state: str | None = None) -> Outcome:
    """
    Args:
        result: of the command, as its JSON has it.
        state: where it is not to be seen from the result.
    """
    error, engine = result.get("error") or {}, result.get("engine") or {}
    state = state or ("failed" if result["exit_code"] else "unchanged" if result.get("skipped") else "built")
    return Outcome(
        state=state,
        exit_code=result["exit_code"],
        status=result.get("status"),
        engine_bytes=engine.get("bytes"),
        engine_sha256=engine.get("sha256"),
        precision=(result.get("precision") or {}).get("delivered"),
        message=error.get("message") or "",
        hint=error.get("hint") or "",
    )


@dataclass
class Record:
    """All conversions of a fleet with what became of them."""

    plan: str
    tasks: tuple[Task, ...]
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # by the place in the plan
    interrupted: int | None = None  # by this signal
    seconds: float = 0.0

    def outcome(self, place: int) -> Outcome:
        return self.outcomes.get(place, Outcome("not_done"))

    def left(self) -> list[int]:
        """Places in the plan of what nothing is known of yet."""
        return [place for place in range(len(self.tasks)) if place not in self.outcomes]

    def counts(self) -> dict[str, int]:
        found = Counter(self.outcome(place).state for place in range(len(self.tasks)))
        return {state: found[state] for state in STATES}

    @property
    def exit_code(self) -> int:
        """Of the signal that ended the fleet; else of the first failure in the order of the plan."""
        if self.interrupted:
            return 128 + self.interrupted
        failed = (self.outcome(place) for place in range(len(self.tasks)) if self.outcome(place).failed)
        first = next(failed, None)
        return int(ExitCode.OK if first is None else first.exit_code or ExitCode.MACHINE)

    def to_json(self) -> str:
        jobs = [
            {"model": task.model, "target": task.target.name, "onnx": task.onnx, "engine": task.engine, **asdict(self.outcome(place))}
            for place, task in enumerate(self.tasks)
        ]
        status = "interrupted" if self.interrupted else "failed" if self.exit_code else "done"
        record = {
            "schema_version": SCHEMA_VERSION,
            "plan": self.plan,
            "status": status,
            "exit_code": self.exit_code,
            "seconds": math.ceil(self.seconds * 1000) / 1000,
            "counts": self.counts(),
            "jobs": jobs,
        }
        return json.dumps(record, indent=2, allow_nan=False) + "\n"
