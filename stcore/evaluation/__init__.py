"""Evaluation of a classifier: natural and robust accuracy. Independent of plans and runs."""
