"""Which job goes to which worker, and who may begin beside whom."""
