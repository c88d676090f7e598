"""Run the command as a user does, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def error(self) -> str:
        """The lines that explain a failure."""
        return "\n".join(line for line in self.stderr.splitlines() if not line.startswith("["))

    def json(self, name: str) -> dict:
        """A result file, checked against the schema."""
        result = json.loads((self.folder / name).read_text())
        if "schema_version" in result and "status" in result:
            check_schema(result)
        return result


def onnx2trt(folder: Path, *arguments, timeout: float = 300, alone: bool = True) -> Outcome:
    """Run onnx2trt.py in `folder`; a traceback or a temporary file left behind is a failure of any test.

    Args:
        alone: nobody else makes temporary files in the folder.
    """
    command = [sys.executable, str(ROOT / "onnx2trt.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, cwd=folder, timeout=timeout)
    outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"), folder)
    if "--verbose" not in arguments and "-v" not in arguments:
        assert "Traceback" not in outcome.stderr, outcome.stderr
    left = list(folder.rglob(".*.tmp")) if alone else []
    assert not left, f"temporary files left: {left}"
    return outcome


def check_schema(result: dict) -> None:
    """The result is what report/result.schema.json says (where jsonschema is installed: not on every GPU machine)."""
    try:
        import jsonschema
    except ImportError:
        return
    jsonschema.validate(result, json.loads((ROOT / "onnx2trt" / "report" / "result.schema.json").read_text()))
