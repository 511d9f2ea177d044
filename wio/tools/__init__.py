"""Settings of other people's tools (aws, rclone, DuckDB, …) for this person's workspaces: written, shown, and taken back."""
