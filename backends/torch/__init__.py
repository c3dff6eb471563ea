if __name__ != "stcore.backends.torch":
    raise ImportError("import this package as stcore.backends.torch, after 'pip install -e .' in the repository root")
