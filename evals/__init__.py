"""Evaluations of the embedded model. They use the public names of `parallel_reason`."""
