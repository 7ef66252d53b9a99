"""Conditionings: from text, by regions and times, with ControlNets and hooks."""
