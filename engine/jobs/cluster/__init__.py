"""Workers on other machines: actors of a Ray cluster, one per device.

On the machine: `device` (the actor), `mailbox` (words both ways), `shipping` (what leaves the machine beside words).
In the front: `actor_worker` (the `Worker`), `depot` (files and unfinished work), `fleet` (who comes and goes).
Between them: `link`, which says nothing of Ray, and `ray_link`, which alone imports it.
"""
