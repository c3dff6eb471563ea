"""What a run will cost, from a short probe of it: `stcli plan`.

`probe` sets a run up and has the `bench` time a few steps of each of its phases by the `stopwatch`; what it
`measured` is what `forecast` reckons the whole run from.
"""
