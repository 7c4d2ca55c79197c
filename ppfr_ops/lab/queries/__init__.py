"""Asking a recogniser of somebody else, and keeping account of every query."""
