"""The order of the stages: the only room that knows it. convert.py reads from top to bottom."""
