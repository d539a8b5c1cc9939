"""Plug-in quantization of single layers to 8 bits: ``dopt.dopt_torch.opt_main`` and ``dopt.dopt_tf.opt_main``.

Neither framework is imported before one of the two is. Docs: docs/dopt.md.
"""
