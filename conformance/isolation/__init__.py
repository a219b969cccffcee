"""The process in which implementations run, and the judge's side of it: what they are given, what they left, what they changed."""
