"""What a training job is, and what happened to it. Pure."""
