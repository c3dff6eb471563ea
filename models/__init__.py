if __name__ != "stcore.models":
    raise ImportError("import this package as stcore.models, after 'pip install -e .' in the repository root")
