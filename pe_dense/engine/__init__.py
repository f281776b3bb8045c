"""Running configs: what the tools share."""
