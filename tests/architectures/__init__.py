"""Small stand-ins for the architectures that people train, each with dropout and drop path."""
