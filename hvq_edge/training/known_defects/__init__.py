"""Known defects: their images, and the metric that is learnt from them."""
