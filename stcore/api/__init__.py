"""What users call: whole runs (`training`, `run`), losses and steps for a training loop of one's own (`steps`).

Native tensors in, native tensors out. Arguments that the functions of `steps` share:

model: a `torch.nn.Module` or `keras.Model` that maps pixels in [0, 1], in its own layout, to logits (B, C).
x: floating pixels (B, …) within the settings' bounds.   y: integer labels (B,) in [0, C), or
    soft labels: class probabilities (B, C) in the dtype of the logits, whose rows sum to one.
noise: native tensors shaped like x: standard normal for init="gaussian", in the unit ball for "uniform"; two for
    squeeze training, one for each entry of `objective.noise_laws` otherwise. By default noise is drawn in numpy.
rng: source of the drawn noise: a `numpy.random.Generator`, which advances with each call, or a seed, which draws
    the same noise each time; by default fresh entropy. No global state is read.

Inside a traced graph (`tf.function`, `jax.jit`) noise must be given: a draw in numpy would be frozen into the
graph. On JAX a model's variables are arguments of the traced or differentiated function, as in Keras itself: call
these functions within a `keras.StatelessScope` that maps them, then read the running statistics from the scope.

Raises TypeError for a model of an unknown framework or a tensor that is not of the model's framework and dtype,
DataError for pixels or labels out of range, for noise that is not finite and for a pair that is not finite or
further from x than epsilon and its start noise, and UsageError for a model that does not return logits, and for
noise or a pair not shaped like x. On another device than the host, values after a model's first batch are checked
there and looked at every ten calls or so: their DataError comes late, and no call waits for the device.
"""
