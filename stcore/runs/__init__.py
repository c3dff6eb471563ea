"""Runs: a plan and the folder that holds its results."""
