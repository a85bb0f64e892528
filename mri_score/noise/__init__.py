"""Noise levels: schedules, the automatic levels of NCSNv2, the numbers of a dataset."""
