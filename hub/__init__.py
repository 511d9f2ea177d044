"""The hub: identity, workspaces, shares and the global search index. It never carries data nor sees a usable key."""
