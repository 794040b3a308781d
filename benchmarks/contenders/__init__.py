"""What `benchmarks/peers.py` compares, and how."""
