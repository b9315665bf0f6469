"""Forecasters at work: what they said, how right it was, when they are replaced, and who answers when they fail."""
