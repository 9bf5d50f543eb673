"""Pages and tables of results, for people."""
