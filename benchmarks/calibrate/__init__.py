"""Calibration files that ship, made again."""
