"""What a person installs: the client library and the ``wio`` command."""
