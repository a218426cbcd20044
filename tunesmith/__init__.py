"""Tunesmith: the fine-tuning service you keep."""

__version__ = "0.1.0"
