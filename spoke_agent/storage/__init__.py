"""The kinds of storage server, behind one interface (``node``)."""
