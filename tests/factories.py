"""Networks such as a user may bring by `--model factories:NAME`; each imports the framework it needs."""


def torch_transformer(num_classes, in_channels, image_size):
    """Patches of 4×4 pixels with learnt places; attention and a perceptron between layer norms; dropout."""
    import torch
    from torch import nn

    class Transformer(nn.Module):
        def __init__(self, tokens, width=8):
            super().__init__()
            self.patches = nn.Conv2d(in_channels, width, 4, stride=4)
            self.places = nn.Parameter(0.02 * torch.randn(1, tokens, width))
            self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
            self.attention = nn.MultiheadAttention(width, 2, dropout=0.1, batch_first=True)
            self.perceptron = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, width))
            self.head = nn.Linear(width, num_classes)
            self.register_buffer("tokens", torch.arange(tokens))

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2) + self.places[:, self.tokens]
            y = self.norm1(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            x = x + self.perceptron(self.norm2(x))
            return self.head(self.norm3(x).mean(1))

    return Transformer(image_size[0] // 4 * (image_size[1] // 4))


def keras_transformer(num_classes, in_channels, image_size):
    """The same in Keras, of its own layers, without learnt positions."""
    import keras
    from keras import layers

    pixels = keras.Input((*image_size, in_channels))
    x = layers.Conv2D(8, 4, strides=4)(pixels)
    x = layers.Reshape((-1, 8))(x)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, dropout=0.1)(y, y)])
    y = layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(8)(layers.Dropout(0.1)(y))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(pixels, layers.Dense(num_classes)(x))


def torch_norms(num_classes, in_channels):
    """A network with batch norms, which count their batches."""
    from torch import nn

    norm = [nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*norm, nn.Linear(16, num_classes))


def torch_tied(num_classes, **rest):
    """A module that stands in two places, with batch norm before it; takes any argument."""
    from torch import nn

    features = rest["in_channels"] * rest["image_size"][0] * rest["image_size"][1]
    shared = nn.Linear(8, 8)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, 8),
        nn.BatchNorm1d(8),
        shared,
        nn.ReLU(),
        shared,
        nn.Linear(8, num_classes),
    )


def keras_separable(num_classes, image_size, in_channels):
    """Layers with several weights, one layer that stands in two places, and a model within the model."""
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.BatchNormalization()])
    pixels = keras.Input((*image_size, in_channels))
    x = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(8, 3)(pixels))
    return keras.Model(pixels, layers.Dense(num_classes)(inner(inner(x))))


def numpys(num_classes):
    """Takes one argument; draws from Python's and numpy's generators."""
    import random

    import numpy as np
    import torch

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))
    net(torch.zeros(1, 64))
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor(np.random.rand(num_classes) + random.random()))
    return net


def no_network():
    return {"a": "dict"}


def broken(num_classes):
    raise KeyError("layers")


def unbuilt(num_classes):
    """Without a keras.Input it has no weights yet."""
    import keras

    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(num_classes)])


def fixed_dtype(num_classes, image_size, in_channels):
    """Its layers will not follow --dtype."""
    import keras

    flat = keras.layers.Flatten(dtype="float32")
    shape = (*image_size, in_channels)
    return keras.Sequential([keras.Input(shape), flat, keras.layers.Dense(num_classes, dtype="float32")])


NOT_CALLABLE = 3


def torch_group_norm(num_classes, in_channels, image_size):
    """Without statistics of a batch: what it makes of an image does not depend on the others."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * ((image_size[0] - 1) // 2) * ((image_size[1] - 1) // 2), num_classes),
    )


def keras_group_norm(num_classes, in_channels, image_size):
    """The same kind in Keras, in float64."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((*image_size, in_channels), dtype="float64"),
            layers.Conv2D(8, 3, padding="same", dtype="float64"),
            layers.GroupNormalization(2, dtype="float64"),
            layers.ReLU(dtype="float64"),
            layers.Conv2D(8, 3, strides=2, dtype="float64"),
            layers.GroupNormalization(2, dtype="float64"),
            layers.ReLU(dtype="float64"),
            layers.Flatten(dtype="float64"),
            layers.Dense(num_classes, dtype="float64"),
        ]
    )


def torch_few_weights(num_classes, in_channels, image_size):
    """Some hundred weights, for runs that are kept as files."""
    from torch import nn

    patches = (image_size[0] // 4) * (image_size[1] // 4)
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 4, stride=4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * patches, num_classes),
    )


def keras_few_weights(num_classes, in_channels, image_size):
    """The same in Keras."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((*image_size, in_channels)),
            layers.Conv2D(4, 4, strides=4),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(num_classes),
        ]
    )


def torch_quantised(num_classes, in_channels, image_size):
    """A linear network of pixels rounded to ten levels, whose gradient is zero."""
    import torch
    from torch import nn

    class Quantise(nn.Module):
        def forward(self, x):
            return torch.round(10 * x) / 10

    return nn.Sequential(
        Quantise(), nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)
    )
