"""The demo in a browser, `hih-align demo`: photographs, videos and a webcam, and a look into the heatmaps.

`app` puts the page together, and each tab has a module. Needs the extra ``[demo]``.
"""
