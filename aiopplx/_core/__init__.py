"""The life of submissions: what a session does between its public methods and the network."""
