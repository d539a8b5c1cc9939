"""Layers with weights: convolutions, linear layers, norms, embeddings, attention."""
