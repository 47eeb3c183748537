"""Training on cached backbone features."""
