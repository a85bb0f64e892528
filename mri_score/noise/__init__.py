"""Noise levels: schedules, the automatic levels of NCSNv2, and the measured numbers of a dataset."""
