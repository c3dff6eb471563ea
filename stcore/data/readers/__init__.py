"""Readers: one module per data format, each returning `stcore.data.Splits`."""
