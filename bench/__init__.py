"""Benchmarks: every figure beside a bare loop that does the least possible work, in the same run."""
