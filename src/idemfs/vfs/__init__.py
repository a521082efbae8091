"""What POSIX means, once, for every adapter."""
