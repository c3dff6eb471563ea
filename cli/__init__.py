"""The command line `stcli`: parses options and prints results; the work is done in `stcore`."""

if __name__ != "stcore.cli":
    raise ImportError("import this package as stcore.cli, after 'pip install -e .' in the repository root")
