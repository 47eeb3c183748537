"""That a bundle on a device is the one that was accepted: signed, carried and switched whole."""
