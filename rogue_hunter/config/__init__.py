"""Configuration: every option with its default, its reason and its bounds, and the TOML that sets them."""
