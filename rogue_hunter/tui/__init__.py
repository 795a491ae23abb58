"""rh-top: the live view of a running rh-pipe, with keys."""
