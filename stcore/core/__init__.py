"""Mathematics of robust training, over the tensor protocol of `stcore.protocols`."""
