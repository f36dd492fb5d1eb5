"""Where credentials and the ledger are kept."""
