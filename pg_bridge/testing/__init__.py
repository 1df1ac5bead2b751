"""What a test of an application that uses pg_bridge needs: an engine double and a throw-away cluster."""
