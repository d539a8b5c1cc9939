"""Layers with weights: convolutions, linear layers, norms, embeddings, attention."""

from . import batch_norm_folding, batch_norm_nodes, calls, conv_nodes, layer_norm_nodes, linear_nodes  # noqa: F401  for the tables they fill
