"""Finished runs beside a row of the paper: `compare` says whether they reproduce it."""

from stcore.comparison.record import Record, read_record
from stcore.comparison.verdict import Row, Verdict, compare

__all__ = ["Record", "Row", "Verdict", "compare", "read_record"]
