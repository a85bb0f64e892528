"""Configs of the projects that this one replaces: read without running them, and translated key by key."""
