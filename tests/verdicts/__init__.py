"""Kinds of outputs with good and ruined candidates: what a verdict has to tell apart."""
