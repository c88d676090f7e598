"""What came of each model and precision, kept line by line in a file, so that a run that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .attempt import RAW
from .case import Case
from .classes import outcome


@dataclass(frozen=True)
class Version:
    """What a row depends on, besides the model."""

    package: str  # hash of this project's package
    commit: str  # of the checkout, with a + where the package has changed since; empty where there is none
    others: str  # TensorRT, onnx, ONNX Runtime, NumPy, the GPU

    def made(self, row: dict) -> bool:
        """Whether a row is of this version; no part of this project is in what the bare library says."""
        return row.get("others") == self.others and (row["precision"] == RAW or row.get("package") == self.package)


def version(root: Path, others: dict) -> Version:
    """
    Args:
        root: of the checkout.
        others: what page.environment has found.
    """
    digest = hashlib.sha256()
    for path in sorted((root / "onnx2trt").rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return Version(digest.hexdigest()[:12], _commit(root), ", ".join(f"{name} {value}" for name, value in others.items()))


def _commit(root: Path) -> str:
    try:
        asked = (["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "onnx2trt"])
        commit, changed = (subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.strip() for words in asked)
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + "+" * bool(changed)


class Results:
    """Rows by model and precision."""

    def __init__(self, path: Path, version: Version, fresh: bool = False, any_version: bool = False):
        """
        Args:
            fresh: forget what the file holds.
            any_version: rows of other versions count, too; the last of each model and precision.
        """
        self._path, self._version = path, version
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        self.known: dict[tuple[str, str], dict] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            row = json.loads(line)
            if any_version or version.made(row):
                self.known[row["key"], row["precision"]] = row

    def add(self, case: Case, precision: str, found: dict) -> None:
        made = self._version
        row = {"key": case.key, "precision": precision, "package": made.package, "commit": made.commit, "others": made.others}
        self.known[case.key, precision] = {**row, "found": found}
        with self._path.open("a") as stream:
            stream.write(json.dumps(self.known[case.key, precision]) + "\n")

    def lacking(self, cases: list[Case], precisions: tuple[str, ...]) -> Iterator[tuple[Case, str]]:
        """What is to be run; small models first, so that an interruption leaves most rows there."""
        for case in sorted(cases, key=lambda case: (case.group != "onnx", case.path.stat().st_size)):
            for precision in (RAW, *wanted(case, precisions)):
                if (case.key, precision) not in self.known:
                    yield case, precision

    def rows(self, cases: list[Case], precisions: tuple[str, ...]) -> list[dict]:
        """A row for each model and precision that is known."""
        rows = []
        for case in cases:
            library = self.known.get((case.key, RAW))
            for precision in wanted(case, precisions):
                known = self.known.get((case.key, precision))
                if known is not None and library is not None:
                    about = {"group": case.group, "kind": case.kind, "name": case.name, "source": case.source, "precision": precision}
                    found = {"commit": known.get("commit", ""), **known["found"], "library": library["found"]}
                    rows.append({**about, "class": outcome(known["found"], library["found"]), **found})
        return rows


def wanted(case: Case, precisions: tuple[str, ...]) -> tuple[str, ...]:
    """The precisions of a case that were asked for; all where none was."""
    return tuple(precision for precision in case.precisions if not precisions or precision in precisions)
