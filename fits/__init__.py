"""How the coefficients of `lepton_rl.core.hardware` are found, from published measurements that may ship.

`python -m fits` prints every coefficient with its error; `--write` rewrites the file that lepton_rl comes with.
"""
