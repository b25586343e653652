"""What running in threads costs and gains, and a soak; each ``python -m benchmarks.NAME``, from a checkout."""
