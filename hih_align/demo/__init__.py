"""The demo in a browser, `hih-align demo`: photographs, videos, a webcam, and the heatmaps of a face.

`app` builds the page, and each tab has a module. Needs the extra ``[demo]``.
"""
