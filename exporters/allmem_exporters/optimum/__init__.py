"""The plug-in for optimum: its registry entry and its command."""
