"""Published workflows over HTTP: a graph and a manifest make an endpoint. Speaks to `Jobs` and to no other adapter."""
