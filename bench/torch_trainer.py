"""A whole training step of the reference's design in plain PyTorch: the yardstick of bench/train.py, on one device.

The encoder with the whole matrix of attention scores, a bank whose softmaxes are sampled anew for each label column, autograd
through both, clipping, and AdamW over all parameters and the whole bank.
"""

import numpy as np
import torch
from torch_centers import SampledSoftmax
from torch_vit import Vit

from ove.config import EncoderConfig


class Trainer:
    """Takes steps on one batch after the other."""

    def __init__(self, config: EncoderConfig, n_centers: int, n_sampled: int) -> None:
        torch.manual_seed(0)
        self.encoder = Vit(config, "eager")
        self.project = torch.nn.Linear(config.width, config.embedding_width, bias=False)
        self.bank = SampledSoftmax(n_centers, config.embedding_width, n_sampled)
        for parameter in (*self.encoder.parameters(), *self.project.parameters()):
            torch.nn.init.normal_(parameter, std=config.init_std)
        modules = torch.nn.ModuleList([self.encoder, self.project])
        self.groups = list(modules.parameters()), list(self.bank.parameters())
        self.optimizer = torch.optim.AdamW([*self.groups[0], *self.groups[1]], lr=1e-3, weight_decay=0.2)

    def __call__(self, patches: np.ndarray, positions: np.ndarray, labels: np.ndarray) -> float:
        """One step; its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        pooled = self.encoder(torch.from_numpy(patches), torch.from_numpy(positions))[1]
        loss = self.bank(self.project(pooled), torch.from_numpy(labels).long())
        loss.backward()
        for group in self.groups:
            torch.nn.utils.clip_grad_norm_(group, 5.0)
        self.optimizer.step()
        return float(loss.detach())
