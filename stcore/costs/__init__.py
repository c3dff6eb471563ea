"""Cost forecast of a run from a short probe: `stcli plan`.

`probe` sets a run up; `bench` times a few steps of each of its phases with `stopwatch`; `measured` holds the
results, from which `forecast` computes the whole run.
"""
