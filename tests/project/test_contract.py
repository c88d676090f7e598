"""Contract with real TensorRT 10.15 and 11.2 libraries, without a GPU. Run with: pytest -m contract

Each release needs a process of its own, so the cases stand in tests/contract/ and run under their own pytest.
"""

import subprocess
import sys
from pathlib import Path

import fetch_tensorrt
import pytest

pytestmark = pytest.mark.contract
CASES = Path(__file__).resolve().parents[1] / "contract"


@pytest.mark.parametrize(
    "release, cases",
    [("10.15", "weak_typing.py"), ("11.2", "strong_typing.py"), ("10.15", "timing_caches.py"), ("11.2", "timing_caches.py")],
)
def test_release(release, cases):
    try:
        folder = fetch_tensorrt.fetch(release)
    except RuntimeError as error:
        pytest.skip(f"TensorRT {release} cannot be had here: {error}")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-o", "addopts=", str(CASES / cases)]
    done = subprocess.run(command, env=fetch_tensorrt.environment(folder), capture_output=True, text=True, cwd=CASES.parent.parent)
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout.splitlines()[-1]
