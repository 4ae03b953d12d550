"""A network with two branches of random predictions, in numpy or torch."""

import numpy as np
import torch

from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.sampling.denoiser import drive


class Branches:
    """Random predictions per branch, the same ones for every call at one ``t``."""

    def __init__(self, kind="flow", path=None, shape=(3, 4, 6, 8), to_array=torch.as_tensor):
        self.kind, self.path, self.shape, self.to_array = kind, path or Flow(), shape, to_array
        self.calls = []
        self.x = to_array(np.random.default_rng(9).standard_normal(shape).astype("float32"))

    def raw(self, name, t):
        """The raw output of a branch."""
        random = np.random.default_rng([len(name), int(t * 1000)])
        return self.to_array(random.standard_normal(self.shape).astype("float32"))

    def predict(self, name, t):
        """The prediction of a branch."""
        return Prediction(self.raw(name, t), self.kind, self.x, t, self.path)

    def evaluate(self, t, *branches):
        """Predictions of branches; records what was asked."""
        self.calls.append(tuple(branch.name for branch in branches))
        return tuple(self.predict(branch.name, t) for branch in branches)

    def guided(self, guide, x, t):
        """What a guide makes of the branches' predictions."""
        return guided(guide, lambda *branches: self.evaluate(t, *branches), x, t)

    def run(self, guidance, times):
        """Guided predictions of one run."""
        guide = guidance.begin(RunState(tuple(times), len(times)))
        return [self.guided(guide, self.x, t) for t in times]


def guided(guide, evaluate, x, t):
    """The prediction of a guide whose questions ``evaluate(*branches)`` answers."""
    (made,) = drive([guide(x, t)], lambda asked: [tuple(evaluate(*asked[0][1]))])
    return made


NUMPY_AND_TORCH = {"numpy": np.asarray, "torch": torch.as_tensor}
TIMES = (1.0, 0.8, 0.6, 0.4, 0.2)
