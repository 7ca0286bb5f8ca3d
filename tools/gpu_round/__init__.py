"""A round on a GPU that is lent for minutes: `cargo` packs what it takes along, `rounds` checks and trains there,
`parcel` brings the results back. `scripts/gpu_round` runs it."""
