"""What the paper measures and the product does not need; runs from a checkout, not part of the wheel.

* `paper`: the paper's figures
* `quantization`: the error of heatmaps themselves (Sec. IV-B, Fig. 4, Tab. IX "Ideal")
* `rivals`: the paper's competitors for the subpixel part (Appendix, Tab. V and VI)
* `ablations/`: all of them, and the paper's ablations, under one short budget
"""
