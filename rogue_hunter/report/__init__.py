"""Reading the database: the views of rh-report, and the summary at the end of a run."""

from rogue_hunter.report.summary import print_summary

__all__ = ["print_summary"]
