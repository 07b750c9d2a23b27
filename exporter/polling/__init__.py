"""When a target is read, what is known about it, and what a failed poll means."""
