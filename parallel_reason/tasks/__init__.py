"""Tasks: problems, how they are written for a model, and a strict verifier, one folder a task."""
