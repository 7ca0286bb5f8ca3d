"""The figures that the paper (arXiv 2104.03100 v2) reports, in percent except AUC10, to compare ours with."""

from collections.abc import Mapping

#: The columns of WFLW's tables after the full set.
SUBSETS = ("pose", "expression", "illumination", "makeup", "occlusion", "blur")

#: NME of heatmaps without a network, by scheme and decimal size; 0: no decimal heatmap (Sec. IV-B, Tab. IX "Ideal").
IDEAL: Mapping[str, Mapping[int, float]] = {
    "wflw": {0: 1.285, 4: 0.420, 8: 0.182, 16: 0.091},
    "300w": {0: 1.111},
    "cofw": {0: 0.864},
}

#: Inter-ocular NME on 300W's full, common and challenging sets (Tab. III).
W300 = {"HIH_T": (3.29, 2.89, 4.95), "HIH_S": (3.15, 2.75, 4.80), "HIH_B": (3.09, 2.65, 4.89)}

#: WFLW's full set and `SUBSETS` (Tab. I and IV).
WFLW = {
    "HIH_T": {
        "nme": (4.27, 7.38, 4.33, 4.59, 4.01, 5.16, 5.00),
        "fr10": (2.92, 13.80, 2.54, 2.43, 3.39, 6.38, 3.62),
        "auc10": (0.593, 0.337, 0.578, 0.606, 0.600, 0.524, 0.545),
    },
    "HIH_S": {
        "nme": (4.13, 7.20, 4.18, 4.38, 3.90, 4.98, 4.71),
        "fr10": (2.80, 13.49, 1.59, 2.57, 1.94, 5.29, 3.23),
        "auc10": (0.602, 0.346, 0.592, 0.613, 0.612, 0.535, 0.558),
    },
    "HIH_B": {
        "nme": (4.08, 6.87, 4.06, 4.34, 3.85, 4.85, 4.66),
        "fr10": (2.60, 12.88, 1.27, 2.43, 1.45, 5.16, 3.10),
        "auc10": (0.605, 0.358, 0.601, 0.613, 0.618, 0.539, 0.561),
    },
}

#: COFW (Tab. II).
COFW = {"HIH_T": 3.35, "HIH_S": 3.25, "HIH_B": 3.21}

#: Full-set NME by scheme. "SOTA" is the better one of ADNet and SLPT, as in Fig. 4.
FIGURE_4: Mapping[str, Mapping[str, float]] = {
    "wflw": {"SOTA": 4.14, **{size: row["nme"][0] for size, row in WFLW.items()}},
    "300w": {"SOTA": 2.93, **{size: row[0] for size, row in W300.items()}},
    "cofw": {"SOTA": 3.32, **COFW},
}

#: NME of HIH_T on 300W's common set, by subpixel part (Tab. VI).
SUBPIXEL = {
    **{"baseline": 3.157, "wsm": 2.988, "dark": 2.962, "wov": 3.014, "wom": 3.127},
    **{"hih-l2": 2.946, "hih": 2.891},
}
