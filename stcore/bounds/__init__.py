"""Proved lower bounds of robust accuracy: intervals, linear relaxation, randomised smoothing."""
