"""The operator's listener: metrics, status, health. Off unless the configuration has it."""
