"""What of documents is recovered, and what that takes."""
