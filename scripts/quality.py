"""The quality protocol of docs/quality.md: chunks, scored positions, figures. Needs numpy only."""
import math

import numpy as np

CHUNK = 512  # tokens, not overlapping; a last incomplete chunk is dropped


def scored(chunk=CHUNK):
    """Positions whose logits count: the second half but for the last, which predicts nothing here."""
    return slice(chunk // 2, chunk - 1)


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


class Figures:
    """Sums over scored positions: perplexity, and mean KL(reference || this) and top-1 agreement."""

    def __init__(self):
        self.nll = self.kl = 0.0
        self.same_top = self.count = 0

    def add(self, log_p, targets, reference=None):
        """`log_p` [n, vocab] log-probabilities, `targets` [n] the tokens that came."""
        self.nll -= log_p[np.arange(len(targets)), targets].sum()
        self.count += len(targets)
        if reference is not None:
            self.kl += (np.exp(reference) * (reference - log_p)).sum()
            self.same_top += int((reference.argmax(-1) == log_p.argmax(-1)).sum())

    @property
    def perplexity(self):
        return math.exp(self.nll / self.count)

    @property
    def kl_mean(self):
        return self.kl / self.count

    @property
    def top1_agreement(self):
        return self.same_top / self.count
