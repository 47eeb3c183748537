"""The live page: a small web server beside the inspector, in its own thread."""
