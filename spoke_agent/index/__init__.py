"""What the agent knows of the objects in its roots, and how the hub gets to know it: scan, change feed, snapshot, journal."""
