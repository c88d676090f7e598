"""Why an engine does not load: one sentence and the next step, out of TensorRT's own errors."""

from __future__ import annotations

import re

OTHER_GPU = (r"expecting compute ([\d.]+) got compute ([\d.]+)", r"GPU, which has compute capability ([\d.]+)")
OTHER_VERSION = r"expecting library version ([\d.]+\d) got ([\d.]+\d)"
NO_PLUGIN = r"(?:cannot|could not) find plugin:? *([\w.]*)|IPluginCreator not found"
DAMAGED = ("plan.header.size", "cursor < blobsize", "buffersize >= minbuffersize", "read past", "checksum", "truncated")
HERE = "Build it again on this machine, or with --gpu-arch for this GPU (TensorRT-RTX)."


def explain(errors: str, made_by: str = "", here: str = "") -> tuple[str, str]:
    """(why, what to do); both empty where the errors tell nothing that is known.

    Args:
        errors: what TensorRT said.
        made_by: version in the engine's header, as 10.6.0.26; empty where it has none.
        here: version of the library that tried.
    """
    text = errors.lower()
    if "enginehostcodeallowed" in text or "engine_host_code_allowed" in text:
        return (
            "it is version-compatible and brings code of its own, which is not run from an engine that somebody else may have made",
            "Load it with engine_host_code_allowed in a program that trusts it, or with the version that built it.",
        )
    plugin = re.search(NO_PLUGIN, errors, re.IGNORECASE)
    if plugin:
        which = f"the plugin {plugin.group(1)}" if plugin.group(1) else "a plugin"
        return f"it contains {which}, which is not loaded here", "Name the library that has it with --plugins."
    for pattern in OTHER_GPU:
        found = re.search(pattern, errors)
        if found:
            here_is, *made_for = found.groups()
            other = f" {made_for[0].rstrip('.')}" if made_for else " another"
            return f"it was made for a GPU of compute capability{other}, the one here has {here_is.rstrip('.')}", HERE
    version = re.search(OTHER_VERSION, errors)
    if version or (made_by and here and not _same(made_by, here)):
        here, made_by = (version.group(1), version.group(2)) if version else (here, made_by)
        return (
            f"it was made by version {made_by}, here is {here}",
            "Engines load with the version that made them: build it again, or with --version-compatible (TensorRT 8.6 and newer).",
        )
    if any(word in text for word in DAMAGED):
        return "the file is damaged or cut off", "Copy it again, and compare its sha256 with the one in its JSON file."
    if "version" in text or "magic" in text or "serialization" in text:
        return "it was made by another version of TensorRT", "Build it again with the version that serves it."
    if "compute capability" in text or "device" in text and "incompatible" in text:
        return "it was made for another GPU", HERE
    if "out of memory" in text or "memory" in text and "alloc" in text:
        return "the GPU has not enough free memory for it", "Close other programs on this GPU."
    return "", ""


def _same(made_by: str, here: str) -> bool:
    """Equal, as far as both go: 10.6.0.26 and 10.6.0."""
    pairs = zip(re.findall(r"\d+", made_by), re.findall(r"\d+", here))
    return all(int(a) == int(b) for a, b in pairs)
