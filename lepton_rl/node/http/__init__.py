"""A node over HTTP: the same verbs as on its socket, for those who hold a token, and a page to look at."""
