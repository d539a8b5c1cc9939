"""Sums, differences, products and quotients of tensors and numbers; matrix products; sums over axes."""
