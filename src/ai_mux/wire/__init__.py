"""Bytes in, meaning out: no I/O, no await."""
