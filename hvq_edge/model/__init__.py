"""HVQ-Trans: backbone, codebooks, transformer and the whole network."""

from hvq_edge.model.checkpoint import load_run, save_checkpoint
from hvq_edge.model.hvq_trans import HVQTrans

__all__ = ["HVQTrans", "load_run", "save_checkpoint"]
