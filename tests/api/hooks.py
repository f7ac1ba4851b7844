"""Hooks of schemathesis."""
