"""Run the command as a user does, and other programs, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORTABLE = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"


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


def onnx2trt(folder: Path, *arguments, **how) -> Outcome:
    """Run onnx2trt.py in `folder`, as `run` does."""
    return run("onnx2trt.py", folder, *arguments, **how)


def run(door: str, folder: Path, *arguments, timeout: float = 300, alone: bool = True, environment: dict | None = None) -> Outcome:
    """Run one of the doors in `folder`; a traceback or a temporary file left behind is a failure of any test.

    Args:
        alone: nobody else makes temporary files in the folder.
        environment: variables besides those of this process.
    """
    command = [sys.executable, str(ROOT / door), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, cwd=folder, timeout=timeout, env={**os.environ, **(environment or {})})
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


def python(program: str, *arguments) -> subprocess.Popen:
    """Start a Python program that may import the package and the helpers of the tests."""
    command = [sys.executable, "-c", IMPORTABLE + textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def others_get_the_lock(path, seconds=0.0) -> bool:
    """Whether another process gets it; within one process every taker does."""
    program = "from onnx2trt.base.locks import locked\nwith locked(sys.argv[1], float(sys.argv[2])) as held: print(held)"
    out, error = python(program, path, seconds).communicate(timeout=20)
    return {"True\n": True, "False\n": False}[out]
