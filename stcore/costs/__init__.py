"""The cost of a run, forecast from a short probe: `stcli plan`.

`probe` sets a run up; its `bench` times a few steps of each phase by the `stopwatch`. `forecast` computes the cost
of the whole run from what was `measured`.
"""
