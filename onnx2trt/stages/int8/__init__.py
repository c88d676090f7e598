"""What INT8 needs between calibration and build."""
