"""The query language and the engines: used by the hub for the global index, by agents for roots indexed on the node."""
