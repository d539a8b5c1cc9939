"""Import path of the 3.x generation's runner: ``from linger.checker.onnxrunner import OnnxRunner``."""
