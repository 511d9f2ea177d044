"""The agents' side: connections, dispatch, desired state out, events in, acknowledgements."""
