"""Protocol of the evaluation: depth hypotheses given, not found, the same for every method and scene."""

NEAREST_M, FARTHEST_M, HYPOTHESES = 0.31, 10.0, 64
"""Nearest and farthest hypothesis, and their number; published figures hold for these."""

SETTINGS = {"hypotheses": {"min_depth_m": NEAREST_M, "max_depth_m": FARTHEST_M, "count": HYPOTHESES}}
"""The same as settings of an estimator."""
