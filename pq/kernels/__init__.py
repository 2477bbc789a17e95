"""Kernels for runs: warm ones forked from a server, and cold ones; read pool first, zygote last."""
