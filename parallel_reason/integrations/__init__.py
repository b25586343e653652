"""Where people already are: models for other evaluation frameworks, over our threads. docs/integrations.md."""
