"""Foundations: files, checks, seeds, progress, interrupts. Knows no tensor operation and no model."""
