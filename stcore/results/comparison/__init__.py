"""Finished runs beside a row of the paper: `compare` says whether they reproduce it."""

from stcore.results.comparison.verdict import Row, Verdict, compare

__all__ = ["Row", "Verdict", "compare"]
