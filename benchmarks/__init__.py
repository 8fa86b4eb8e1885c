"""Speed of lepton_rl, measured: `python -m benchmarks --help`. What the rows mean stands in docs/performance.md."""
