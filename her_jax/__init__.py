"""Hindsight Experience Replay in JAX: replay, relabelling, learner, evaluation."""
