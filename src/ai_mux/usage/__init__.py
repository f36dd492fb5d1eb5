"""What requests use: reading it, pricing it, keeping it."""
