"""Squeeze training and its family, written once, run by PyTorch and Keras."""
