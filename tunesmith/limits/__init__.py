"""How much a project may ask for: buckets that refill, budgets that do not, and what callers hear.

Knows nothing of HTTP or of the database; api/meter.py brings both together.
"""
