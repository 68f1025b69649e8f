"""Stages of your own, one file each; example.py is the template."""
