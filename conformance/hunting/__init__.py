"""The hunt for an input on which an implementation is wrong: which cases run, what they rule out, what is remembered."""
