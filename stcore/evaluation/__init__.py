"""Evaluation: one classifier and its accuracies. Knows no plan."""
