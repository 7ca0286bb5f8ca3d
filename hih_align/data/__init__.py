"""Annotated faces: records, readers, checks, packing, labelling and label conventions."""
