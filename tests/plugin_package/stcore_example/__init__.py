"""A plug-in of each kind for stcore, as docs/own-method.md makes them."""
