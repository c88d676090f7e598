"""Bring real TensorRT libraries to a machine without a GPU, for the contract tests: python tests/fetch_tensorrt.py

10.15 and 11.2 come from Maven Central (libraries, 550 MB each) and PyPI (bindings), into a cache folder of the user. They are
never part of the repository.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "onnx2trt-contract"

# release -> (Maven version of org.bytedeco:tensorrt, requirement of the bindings)
RELEASES = {
    "10.15": ("10.15-1.5.13", "tensorrt-cu13-bindings==10.15.1.29"),
    "11.2": ("11.2-1.5.14", "tensorrt-cu13-bindings==11.2.1.2"),
}


def fetch(release: str) -> Path:
    """Folder with lib/ and site/ of a release, fetched where it is not there yet.

    Raises:
        RuntimeError: it cannot be had here, with the reason.
    """
    folder = CACHE / release
    if (folder / "complete").exists():
        return folder
    maven, bindings = RELEASES[release]
    if shutil.which("mvn") is None:
        raise RuntimeError("mvn is not installed")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "lib").mkdir(parents=True)
    artifact = f"org.bytedeco:tensorrt:{maven}:jar:linux-x86_64-redist"
    jars = folder / "jars"
    run("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={jars}", "-Dmdep.useBaseVersion=true")
    jar = next(jars.glob("*.jar"))
    with zipfile.ZipFile(jar) as archive:
        for member in archive.namelist():
            if ".so" in member:
                with archive.open(member) as source, open(folder / "lib" / Path(member).name, "wb") as target:
                    shutil.copyfileobj(source, target, 2**22)
    shutil.rmtree(jars)
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "site"), bindings)
    (folder / "site" / "tensorrt").symlink_to("tensorrt_bindings")
    (folder / "complete").touch()
    return folder


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {(done.stdout + done.stderr).strip()[-300:]}")


def environment(folder: Path) -> dict[str, str]:
    """Variables under which `import tensorrt` finds this release and works without a GPU."""
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "PYTHONPATH": os.pathsep.join(
            [str(folder / "site"), str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
        ),
        # undocumented, special to these releases: everything but building and running works without a GPU
        "TRT_INTERNAL_OPTIONS": "--cpu_only=1",
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name in RELEASES:
        print(f"{name}: {fetch(name)}")
