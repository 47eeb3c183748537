"""The network rewritten for inference: tables, matrices, neighbours."""
