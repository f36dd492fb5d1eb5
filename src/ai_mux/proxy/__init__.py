"""The proxy: from a client's bytes to a provider's, and back. Start with ``exchange.py``."""
