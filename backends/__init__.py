if __name__ != "stcore.backends":
    raise ImportError("import this package as stcore.backends, after 'pip install -e .' in the repository root")
