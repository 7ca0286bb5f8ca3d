"""Training on a GPU machine that is available for minutes (a round). `scripts/gpu_round` runs it.

`cargo` packs the input files. `rounds` runs checks and trainings on the machine. `parcel` transfers the results back.
"""
