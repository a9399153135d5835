"""What the interop cases share; Python's standard library only."""
