"""Record which symbols each TensorRT has, from the Python bindings on PyPI: python tests/record_symbols.py

The bindings (1 MB) are imported without TensorRT's libraries (1 GB): a stub with the dozen functions that they link to is
compiled for each, which is enough to register classes and enums. Needs gcc, nm, readelf and network access to PyPI.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "symbols"

# file name -> requirement; the bindings are made for each CPython apart, so this runs under one that all of them know
RELEASES = {
    "tensorrt-8.6.1": "tensorrt_bindings==8.6.1",
    "tensorrt-10.0.1": "tensorrt-cu12-bindings==10.0.1",
    "tensorrt-10.6.0": "tensorrt-cu12-bindings==10.6.0",
    "tensorrt-10.16.1": "tensorrt-cu13-bindings==10.16.1.11",
    "tensorrt-11.4.0": "tensorrt-cu13-bindings==11.4.0.106",
    "tensorrt-rtx-1.4.0": "tensorrt-rtx-cu13-bindings==1.4.0.76",
    "tensorrt-rtx-1.7.1": "tensorrt-rtx-cu13-bindings==1.7.1.116",
}

INTROSPECT = """
import importlib.util, inspect, json, sys
spec = importlib.util.spec_from_file_location(sys.argv[2], sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

def describe(cls):
    members = {}
    for name in dir(cls):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(cls, name, None)
        kind = "method"
        if isinstance(value, property):
            kind = "property" if value.fset else "read-only property"
        members[name] = kind
    return members

enums, classes, functions = {}, {}, []
def collect(prefix, holder):
    for name in sorted(vars(holder)):
        value = vars(holder)[name]
        if name.startswith("_"):
            continue
        if inspect.isclass(value):
            if hasattr(value, "__members__"):
                enums[prefix + name] = {key: int(member) for key, member in value.__members__.items()}
            else:
                classes[prefix + name] = describe(value)
                collect(prefix + name + ".", value)
        elif callable(value) and not prefix:
            functions.append(name)
collect("", module)
print(json.dumps({"enums": enums, "classes": classes, "functions": functions}))
"""


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    FOLDER.mkdir(exist_ok=True)
    for name, requirement in RELEASES.items():
        with tempfile.TemporaryDirectory() as folder:
            table = record(requirement, Path(folder))
        path = FOLDER / f"{name}.json"
        version = name.rsplit("-", 1)[1]
        path.write_text(json.dumps({"requirement": requirement, "version": version, **table}, separators=(",", ":"), sort_keys=True) + "\n")
        print(f"{name}: {len(table['enums'])} enums, {len(table['classes'])} classes, {path.stat().st_size // 1024} kB")
    return 0


def record(requirement: str, folder: Path) -> dict:
    """Symbols of one release.

    Raises:
        subprocess.CalledProcessError: pip, gcc or the import failed.
    """
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder), requirement]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    library = next(path for path in folder.rglob("tensorrt*.so") if "stub" not in path.name)
    stubs = compile_stubs(library, folder / "stubs")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs)}
    command = [sys.executable, "-c", INTROSPECT, str(library), library.name.split(".")[0]]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def compile_stubs(library: Path, folder: Path) -> Path:
    """A library for each NVIDIA library that `library` needs, each with all functions that it does not define itself."""
    folder.mkdir()
    dynamic = subprocess.run(["readelf", "-d", str(library)], check=True, capture_output=True, text=True).stdout
    needed = [
        line.split("[")[1].split("]")[0] for line in dynamic.splitlines() if "NEEDED" in line and "libnv" in line or "libtensorrt" in line
    ]
    symbols = subprocess.run(["nm", "-D", "--undefined-only", str(library)], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1] for line in symbols.splitlines() if " U " in line and "@" not in line}
    functions = [name for name in sorted(names) if not name.startswith(("Py", "_Py"))]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for soname in needed:
        subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(folder / soname), str(source)], check=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
