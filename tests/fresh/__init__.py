"""README's two commands on machines that have nothing but Debian and Python: python -m tests.fresh. See RESULTS.md."""
