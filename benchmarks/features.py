"""A perceptual distance by features of a SqueezeNet that was trained on ImageNet, not by us.

Not LPIPS: the features are compared as they are, without learned weights. The network is not part
of dit; give its ONNX file below ``$DIT_DATA`` (``nets/squeezenet/squeezenet_v1.0_dc.onnx``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

LAYERS = ("relu_conv1", "fire3/concat", "fire5/concat", "fire7/concat", "fire9/concat")
MEAN = np.array([104.0, 117.0, 123.0], np.float32)  # blue, green, red


class FeatureDistance:
    """Mean squared distance of unit feature vectors, over the places and five layers.

    Args:
        path: The ONNX file of SqueezeNet 1.0.
    """

    def __init__(self, path: Path):
        import onnx
        import onnxruntime

        model = onnx.load(path)
        made = [name for node in model.graph.node for name in node.output]
        self.names = [next(name for name in made if name.partition(":")[0] == layer) for layer in LAYERS]
        del model.graph.output[:]
        for name in self.names:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self.input = self.session.get_inputs()[0].name

    def features(self, image: np.ndarray) -> list[np.ndarray]:
        """Unit feature vectors (channels, rows, columns) of an uint8 RGB image, a list of layers."""
        given = np.moveaxis(image[:, :, ::-1].astype(np.float32) - MEAN, -1, 0)[None]
        found = self.session.run(self.names, {self.input: np.ascontiguousarray(given)})
        return [part[0] / (np.linalg.norm(part[0], axis=0, keepdims=True) + 1e-6) for part in found]

    def between(self, one: list[np.ndarray], other: list[np.ndarray]) -> float:
        """The distance of two images' features; 0 for equal images."""
        return float(sum(np.square(a - b).sum(0).mean() for a, b in zip(one, other, strict=True)))
