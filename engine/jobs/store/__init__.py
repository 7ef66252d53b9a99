"""The durable half of the job layer: tables, transactions, queries, and the log of each job."""
