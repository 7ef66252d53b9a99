"""Many runs at once: lanes, and who goes next on the device."""
