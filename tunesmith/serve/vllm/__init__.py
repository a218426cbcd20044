"""The engine that has vLLM compute; see docs/operations.md for how it was tried."""
