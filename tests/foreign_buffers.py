"""A stand-in for Stable-Baselines3's `HerReplayBuffer`: the same fields, its own small sampler."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

HORIZON = 10


def pay(achieved, desired):
    return -(np.linalg.norm(achieved - desired, axis=-1) > 0.1).astype(np.float32)


class HerBuffer:
    """Random walks of a point, step by step, two environments, in a ring that has wrapped."""

    def __init__(
        self, capacity: int = 53, played: int = 90, goal_at: str = "next", saturated: bool = False
    ):
        rng = np.random.default_rng(0)
        self.goal_at, self.rng, envs = goal_at, rng, 2

        def zeros(size: int) -> np.ndarray:
            return np.zeros((capacity, envs, size))

        fields = ("observation", "achieved_goal", "desired_goal")
        self.observations = {name: zeros(2) for name in fields}
        self.next_observations = {name: zeros(2) for name in fields}
        self.actions = zeros(2).astype(np.float32)
        self.rewards = np.zeros((capacity, envs), np.float32)
        self.ep_start = np.zeros((capacity, envs), np.int64)
        self.ep_length = np.zeros((capacity, envs), np.int64)
        begin = 0
        for step in range(played):
            at, t = step % capacity, step % HORIZON
            if t == 0:
                self.position = np.zeros((envs, 2))
                self.goal = rng.uniform(-1, 1, (envs, 2))
                begin = at
            self._forget(at)
            action = rng.uniform(-1, 1, (envs, 2)).astype(np.float32)
            if saturated:
                action = np.sign(action)
            before, self.position = self.position, self.position + 0.1 * action
            for stored, state in (
                (self.observations, before),
                (self.next_observations, self.position),
            ):
                stored["observation"][at] = stored["achieved_goal"][at] = state
                stored["desired_goal"][at] = self.goal
            self.actions[at] = action
            self.rewards[at] = pay(self.position, self.goal)
            self.ep_start[at] = begin
            if t == HORIZON - 1:
                self.ep_length[(begin + np.arange(HORIZON)) % capacity] = HORIZON

    def _forget(self, at: int) -> None:
        """An episode that is partly overwritten counts no more."""
        for env in range(2):
            length, start = self.ep_length[at, env], self.ep_start[at, env]
            rows = (start + np.arange(length)) % len(self.ep_length)
            self.ep_length[rows, env] = 0

    def sample(self, rows: int) -> Any:
        """`future` with k = 4; `goal_at` "current" takes s_t's goal in place of a later one."""
        valid = np.argwhere(self.ep_length > 0)
        at, env = valid[self.rng.integers(len(valid), size=rows)].T
        capacity = len(self.ep_length)
        time = (at - self.ep_start[at, env]) % capacity
        later = time + (self.rng.uniform(size=rows) * (HORIZON - time)).astype(int)
        source = (self.ep_start[at, env] + later) % capacity
        goals = self.next_observations["achieved_goal"][source, env]
        if self.goal_at == "current":
            goals = self.observations["achieved_goal"][at, env]
        keep = self.rng.uniform(size=rows) < 0.2
        goals = np.where(keep[:, None], self.observations["desired_goal"][at, env], goals)
        after = self.next_observations["achieved_goal"][at, env]
        return types.SimpleNamespace(
            observations={"observation": self.observations["observation"][at, env],
                          "desired_goal": goals},
            next_observations={"observation": self.next_observations["observation"][at, env]},
            actions=self.actions[at, env],
            rewards=pay(after, goals)[:, None],
        )  # fmt: skip
