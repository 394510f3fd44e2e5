"""The command line `hodor VERB`."""
