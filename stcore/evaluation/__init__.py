"""Evaluation of one classifier: natural and robust accuracies. Knows no plan."""
