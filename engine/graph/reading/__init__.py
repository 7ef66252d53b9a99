"""From files to a `Workflow`: documents, and the pictures, drawings and latents that carry one. Knows no node code."""
