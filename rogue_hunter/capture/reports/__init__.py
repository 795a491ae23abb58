"""Reading the other reports of macOS into records: sample, crashes, memory kills, panics, resets."""
