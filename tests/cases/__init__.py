"""The cases, one module per area."""
