"""Countdown, the task of the embedded model: reach a target with given numbers, each used exactly once."""
