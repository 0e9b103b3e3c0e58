"""Bugs planted at the sources, one for each row of docs/failures.md: the tests must notice them."""
