"""The implementations that `benchmarks/peers.py` compares, and their measurement."""
