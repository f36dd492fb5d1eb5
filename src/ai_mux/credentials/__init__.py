"""What a credential is, and how it stays fresh."""
