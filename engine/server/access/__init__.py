"""Who may call, how often, and from which page: keys, rates, wrong keys, origins. Knows no route."""
