"""The connection to the hub: connect, prove who is who, answer the hub's requests, send the journal, and come back."""
