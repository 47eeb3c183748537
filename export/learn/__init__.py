"""What people called good after all joins a bundle: no training, no PyTorch."""
