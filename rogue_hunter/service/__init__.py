"""Run rh-pipe as a service of the user: the systemd user manager on Linux, launchd on macOS."""
