"""What lies on disk: model folders and saved sessions, read with suspicion."""
