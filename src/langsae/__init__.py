"""langsae: how sparse-autoencoder features behave across languages."""

__version__ = "0.1.0"
