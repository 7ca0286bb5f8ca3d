"""Measurements of the paper that the product does not need. They run from a checkout and are not a part of the wheel.

* `paper`: the figures that the paper reports
* `quantization`: the quantization error of heatmaps (Sec. IV-B, Fig. 4, Tab. IX "Ideal")
* `rivals`: the paper's competitors for the subpixel part (Appendix, Tab. V and VI)
* `ablations/`: the competitors and the paper's ablations, each with the same short training
"""
