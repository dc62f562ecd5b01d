"""Slow NumPy versions of what the library does, written from the papers' descriptions."""

from __future__ import annotations

import numpy as np


def sample_her_transitions(episodes, batch_size, replay_k, reward, rng):
    """Baselines' future sampler: steps with replacement, goals of the first `p` share replaced.

    Episode and time are drawn independently and uniformly. A step keeps its goal with
    probability 1 / (1 + k); otherwise the goal is what the same episode achieves at a time drawn
    uniformly from {t+1, ..., T}. Rewards of all rows are computed afresh from the next achieved
    goal.
    """
    count, horizon = episodes.action.shape[:2]
    rows = {"o": [], "u": [], "o_2": [], "ag_2": [], "g": []}
    for _ in range(batch_size):
        e, t = rng.integers(count), rng.integers(horizon)
        goal = episodes.desired_goal[e]
        if rng.uniform() < 1 - 1 / (1 + replay_k):
            later = t + 1 + int(rng.uniform() * (horizon - t))
            goal = episodes.achieved_goal[e, later]
        rows["o"].append(episodes.observation[e, t])
        rows["u"].append(episodes.action[e, t])
        rows["o_2"].append(episodes.observation[e, t + 1])
        rows["ag_2"].append(episodes.achieved_goal[e, t + 1])
        rows["g"].append(goal)
    arrays = {name: np.stack(values) for name, values in rows.items()}
    return arrays | {"r": reward(arrays["ag_2"], arrays["g"])}


class TwoLayer:
    """inputs -> ReLU -> linear, with its gradient by hand."""

    def __init__(self, w1, b1, w2, b2):
        self.params = [np.asarray(p, np.float64) for p in (w1, b1, w2, b2)]

    def forward(self, x):
        w1, b1, w2, b2 = self.params
        pre = x @ w1 + b1
        return np.maximum(pre, 0) @ w2 + b2, (x, pre)

    def backward(self, cache, upstream):
        """Gradients of the parameters and of the inputs, given d loss / d output [B, out]."""
        w1, _, w2, _ = self.params
        x, pre = cache
        hidden = np.maximum(pre, 0)
        d_pre = (upstream @ w2.T) * (pre > 0)
        grads = [x.T @ d_pre, d_pre.sum(0), hidden.T @ upstream, upstream.sum(0)]
        return grads, d_pre @ w1.T


class Adam:
    """Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1."""

    def __init__(self, params, rate):
        self.rate, self.count = rate, 0
        self.m = [np.zeros_like(p) for p in params]
        self.v = [np.zeros_like(p) for p in params]

    def step(self, params, grads):
        self.count += 1
        out = []
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            self.m[i] = 0.9 * self.m[i] + 0.1 * grad
            self.v[i] = 0.999 * self.v[i] + 0.001 * grad**2
            m_hat = self.m[i] / (1 - 0.9**self.count)
            v_hat = self.v[i] / (1 - 0.999**self.count)
            out.append(param - self.rate * m_hat / (np.sqrt(v_hat) + 1e-8))
        return out
