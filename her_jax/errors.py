"""The one error for what a user can put right."""


class UserError(Exception):
    """Bad input: one line that names the field, the value and the remedy."""
