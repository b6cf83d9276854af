"""One mutable state that reads, answers, forks and is saved."""
