"""Plug-in quantization for TensorFlow in graph mode: :mod:`dopt.dopt_tf.opt_main`."""
