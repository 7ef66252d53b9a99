"""Revision 1: what ComfyUI computes where it differs from ours, quirk by quirk, as existing pictures were made with it.

A solver declares its first revision in `older`: by another function of this folder, by a bound, or by what it is told
about its run. Everything here is held to recorded runs bit for bit or to their rounding; nothing here is mended.
"""
