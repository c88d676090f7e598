"""Stages whose name tells the supervising parent who is to blame for a crash in them."""

BEFORE_STAGES = "start"  # Python and our own modules are loaded: a crash there is the machine's, too
PARSING_STAGES = ("preflight", "parse")  # a crash there is the model's doing
INSPECTING_STAGE = "inspect"  # there the engine's: it is damaged, or not for this library
STARTING_STAGE = "start of TensorRT"  # there the machine's: some releases abort or crash where the driver is too old for them
