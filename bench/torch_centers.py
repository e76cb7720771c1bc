"""A sampled margin softmax as the reference has it, in plain PyTorch: the yardstick of bench/centers.py, on one device.

For each label column a softmax of its own: its positives and random other rows up to the sample's size, cosine logits, margin,
filter and scale; autograd through the indexed rows, and AdamW over the whole bank.
"""

import torch
from torch.nn.functional import cross_entropy, linear, normalize


class SampledSoftmax(torch.nn.Module):
    """A bank with the loss of a batch against a new sample for each label column."""

    def __init__(self, n_centers: int, width: int, n_sampled: int) -> None:
        super().__init__()
        self.rows = torch.nn.Parameter(0.01 * torch.randn(n_centers, width))
        self.n_sampled = n_sampled

    def sample(self, labels: torch.Tensor) -> torch.Tensor:
        """The positives and the rows with the largest of random numbers, ascending."""
        chance = torch.rand(len(self.rows))
        chance[labels.unique()] = 2.0
        return torch.topk(chance, self.n_sampled)[1].sort()[0]

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over label columns and samples; labels (B, M)."""
        loss = embeddings.new_zeros(())
        unit = normalize(embeddings)
        number = torch.arange(len(embeddings))
        for column in labels.T:
            index = self.sample(column)
            target = torch.searchsorted(index, column.contiguous())
            cosine = linear(unit, normalize(self.rows[index])).clamp(-1, 1)
            with torch.no_grad():
                keep = (cosine <= 0.75).float()
                keep[number, target] = 1.0
            logits = cosine * keep
            margin = torch.zeros_like(logits)
            margin[number, target] = 0.3
            loss = loss + cross_entropy(64 * (logits - margin), target)
        return loss / labels.shape[1]


def make_step(n_centers: int, width: int, n_sampled: int, embeddings, labels):
    """A function that takes one training step and returns its loss."""
    torch.manual_seed(0)
    bank = SampledSoftmax(n_centers, width, n_sampled)
    optimizer = torch.optim.AdamW(bank.parameters(), lr=1e-3, weight_decay=0.2)
    seen, labels = torch.from_numpy(embeddings).requires_grad_(), torch.from_numpy(labels).long()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = bank(seen, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bank.parameters(), 5.0)
        optimizer.step()
        return float(loss.detach())

    return step
