"""Comparison of finished runs with a row of the paper: `compare` decides whether they reproduce it."""

from stcore.results.comparison.verdict import Row, Verdict, compare

__all__ = ["Row", "Verdict", "compare"]
