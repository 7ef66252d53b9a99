"""Comfy API v2, `/api/v2`: jobs, their events, and assets, in the form that Comfy's own client packages speak."""
