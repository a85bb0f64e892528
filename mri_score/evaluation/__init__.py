"""How good is a reconstruction: metrics, calibration of its uncertainty, pictures and the report."""
