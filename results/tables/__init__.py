"""Tables from collected rows."""
