"""The connection to the hub: the WebSocket driver, dispatch, and sending the journal."""
