"""The command line: one small file a command; heavy libraries load inside the command."""
