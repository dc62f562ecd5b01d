"""The four Fetch tasks."""
