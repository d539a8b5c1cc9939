"""Plug-in quantization for PyTorch: :mod:`dopt.dopt_torch.opt_main`."""
