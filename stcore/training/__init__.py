"""Training loop: epochs, schedules, metrics, failure recovery. Knows no folder."""
