"""Training: data, rewards, losses and jobs. Uses the public API of `parallel_reason`."""
