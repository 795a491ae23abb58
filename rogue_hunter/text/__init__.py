"""Text for people and from people: formatting, time expressions, redaction of secrets, errors."""
