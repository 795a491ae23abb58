"""Reading the reports of macOS into records: spindump, sample, crashes, memory kills, resets, the output of tools."""
