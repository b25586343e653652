"""Training: data, losses, optimizer and jobs. Uses the public names of `parallel_reason`."""
