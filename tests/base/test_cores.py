"""base/cores.py: affinity and CPU quotas of containers."""

import os
import subprocess
import sys

import pytest
from command import ROOT

from onnx2trt.base.cores import usable_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
MINE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


@pytest.mark.parametrize(
    "text, cores",
    [("max 100000", MINE), ("50000 100000", 1), ("100000 100000", 1), ("150000 100000", 2), ("99900000 100000", MINE), ("junk", MINE)],
)
def test_a_quota_of_cgroups_v2(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert usable_cores(((str(tmp_path / "cpu.max"),),)) == min(cores, MINE)


@pytest.mark.parametrize("quota, cores", [("-1", MINE), ("100000", 1)])
def test_a_quota_of_cgroups_v1(tmp_path, quota, cores):
    (tmp_path / "quota").write_text(quota + "\n")
    (tmp_path / "period").write_text("100000\n")
    missing = (str(tmp_path / "cpu.max"),)
    assert usable_cores((missing, (str(tmp_path / "quota"), str(tmp_path / "period")))) == cores


def test_affinity_counts():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from onnx2trt.base.cores import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
