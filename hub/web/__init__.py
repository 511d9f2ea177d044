"""The people's side: JSON over HTTP. Handlers parse, call one service, shape the answer."""
