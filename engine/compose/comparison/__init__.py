"""What `sigmagraph compare` is made of: cells that run, and the sheet, curves and table that show them."""
