if __name__ != "stcore.backends.keras":
    raise ImportError("import this package as stcore.backends.keras, after 'pip install -e .' in the repository root")
