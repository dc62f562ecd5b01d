"""The one error for what a user can put right, and the errors of others in a line."""

from __future__ import annotations

import jax


class UserError(Exception):
    """Bad input: one line that names the field, the value and the remedy."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether XLA says that the device has no memory left."""
    return "RESOURCE_EXHAUSTED" in str(error)


def reason(error: BaseException) -> str:
    """What an error says first, in one line, or its type; of traced values, what to do instead."""
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return "`if`, `and` and `or` know no traced values; use jax.numpy.where"
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return "NumPy knows no traced values; use jax.numpy"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    announced = len(lines) > 1 and lines[0].endswith(":")
    return " ".join(lines[: 1 + announced]) or type(error).__name__
