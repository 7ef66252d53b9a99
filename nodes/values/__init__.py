"""Plain values: numbers, strings, lists, logic, loops, text files."""
