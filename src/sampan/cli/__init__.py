"""The command line: docker's words, on the client's calls. It starts fast, or it is broken."""
