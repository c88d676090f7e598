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
        return json.loads((self.folder / name).read_text())


def onnx2trt(folder: Path, *arguments, timeout: float = 300) -> Outcome:
    """Run onnx2trt.py in `folder`; a traceback or a temporary file left behind is a failure of any test."""
    command = [sys.executable, str(ROOT / "onnx2trt.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, cwd=folder, timeout=timeout)
    outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"), folder)
    if "--verbose" not in arguments and "-v" not in arguments:
        assert "Traceback" not in outcome.stderr, outcome.stderr
    left = list(folder.rglob(".*.tmp"))
    assert not left, f"temporary files left: {left}"
    return outcome
