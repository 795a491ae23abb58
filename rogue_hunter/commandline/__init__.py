"""What all commands share: how one runs, and their common options."""
