"""Evaluations with the settings that are published."""
