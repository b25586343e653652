"""The torch engine: any transformers model with rotary attention, exact, on CPU and GPU."""
