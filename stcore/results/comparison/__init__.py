"""Comparison of finished runs with a preset: `compare` decides whether they reproduce its accuracies."""

from stcore.results.comparison.verdict import MeasuredRow, Row, Verdict, compare

__all__ = ["MeasuredRow", "Row", "Verdict", "compare"]
