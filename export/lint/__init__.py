"""Rules that every exported graph keeps."""
