"""The training loop. Knows no folder."""
