"""Checks that no ready-made tool does. Run by `make check`."""
