"""Notebooks as jobs: read job first, then execution and runs; sweeps stand on top."""
