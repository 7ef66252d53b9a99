"""One run on a CUDA device, under five minutes: how fast full-size SD3.5 is here, and what would make it faster.

    python -m benchmarks.gpu --out results            on a machine with a GPU, from the repository's root
    python -m benchmarks.gpu --dry --out results      tiny sizes on a CPU: shows that the program runs, seconds
    python -m benchmarks.gpu --only machine,eager     some sections alone; --list names them

Weights are random and made on the device; nothing is downloaded. Every section catches its own errors and is skipped
when the clock would run out. `results.md` and `results.json` are written anew after each row, so that a run that is cut
short keeps what it has. diffusers is measured beside us where it can be imported. Needs `sigmagraph.engine.models` and
`sigmagraph.engine.sampling`: torch and safetensors, and transformers for the sections `text` and `loading`.
"""
