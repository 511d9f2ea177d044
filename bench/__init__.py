"""The figures wio promises, each measured beside its peer in the same run: `make bench` (ONLY=B1,B2 OUT=file.json)."""
