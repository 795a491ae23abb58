"""The views of rh-report, one module each."""
