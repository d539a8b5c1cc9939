"""A tape that does to real tensors what the recorded nodes do."""

import torch
import torch.nn.functional as F


class Replay:
    """Stands in for a tape behind a ``Chain``; ``values`` holds what every name of the file is."""

    def __init__(self, platform, x):
        self.platform, self.values, self.count = platform, {"x": x}, 0
        self.perms, self.kernels = [], []

    def value(self, hint):
        self.count += 1
        return f"{hint}_{self.count}"

    def node(self, op_type, inputs, outputs, attributes, *, domain, hint):
        x = self.values[inputs[0]]
        if op_type == "Transpose":
            self.perms.append(attributes["perm"])
            y = x.permute(attributes["perm"])
        elif op_type == "Reshape":
            y = x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(inputs[1].tolist())])
        elif op_type == "Slice":
            start, end, axis = (int(v[0]) for v in inputs[1:])
            y = x.narrow(axis, start, end - start)
        elif op_type == "Gather":
            y = x.index_select(attributes["axis"], torch.from_numpy(inputs[1]))
        else:
            assert op_type == "MaxPool"
            top, left, bottom, right = attributes["pads"]
            self.kernels += attributes["kernel_shape"]
            assert all(k >= s for k, s in zip(attributes["kernel_shape"], attributes["strides"], strict=True))
            assert max(attributes["pads"]) <= max(attributes["kernel_shape"])
            padded = F.pad(x, (left, right, top, bottom), value=float("-inf"))
            y = F.max_pool2d(padded, attributes["kernel_shape"], attributes["strides"])
        self.values[outputs[0]] = y
