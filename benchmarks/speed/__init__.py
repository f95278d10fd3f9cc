"""Timed comparisons, each against a named peer in the same run."""
