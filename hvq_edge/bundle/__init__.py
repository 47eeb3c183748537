"""The bundle: all that a device needs to inspect, without PyTorch."""
