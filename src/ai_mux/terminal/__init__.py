"""What verbs that a person reads have in common: short figures, and a page for a terminal.

figures   numbers, money and durations in a few characters
page      what is drawn on; the one that needs Rich
"""
