"""The command line, `stcli`: it parses and prints; the work is done in `stcore`."""

if __name__ != "stcore.cli":
    raise ImportError("import this package as stcore.cli, after 'pip install -e .' in the repository root")
