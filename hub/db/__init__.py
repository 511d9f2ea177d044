"""The hub's tables and what is asked of them in SQL."""
