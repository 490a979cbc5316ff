"""GLOSSARY: each term of the field that reports use, in one plain sentence."""

from __future__ import annotations

GLOSSARY: dict[str, str] = {
    # -- what is measured ------------------------------------------------------------------
    "log-loss": "Minus the natural logarithm of the probability that was given to the label: 0 "
    "where it is 1, infinite where it is 0; also called cross-entropy.",
    "loss": "The mean log-loss of the valid samples, in nats: infinite if that of any sample is.",
    "finite loss": "The mean log-loss of those samples whose loss is finite, in nats.",
    "loss of the right": "The mean log-loss of the samples that are predicted rightly, in nats.",
    "loss of the wrong": "The mean log-loss of the samples that are predicted wrongly, in nats.",
    "infinite loss": "The loss of a sample whose label got probability 0.",
    "nats": "The unit of a log-loss with the natural logarithm: 0.69 nats are one bit.",
    "accuracy": "The share of samples whose most probable class is the label.",
    "top-5 accuracy": "The share of samples whose label is among the five most probable classes.",
    "points": "Percentage points: from 80 % to 81 % is one point.",
    "confidence": "The probability of the predicted class.",
    "margin": "The log-probability of the label minus the largest one of another class: above 0 "
    "where the prediction is right.",
    "Brier score": "The squared distance between the probabilities and the label (0 to 2), which "
    "bounds what one sample may cost (Brier 1950).",
    "probability of the label": "What the prediction gave to the label: e to the power of minus "
    "the loss.",
    # -- calibration -----------------------------------------------------------------------
    "calibration": "The part of the loss that the best temperature would take off: what is lost by "
    "being too sure, or not sure enough.",
    "refinement": "The loss that would be left at the best temperature: how well the classes are "
    "told apart (Berta et al. 2025, arXiv:2501.19195).",
    "logits": "What a classifier gives for each class before softmax makes probabilities of it.",
    "temperature": "What logits are divided by: the one with the lowest loss is above 1 where "
    "predictions are too sure, below 1 where they are not sure enough (Guo et al. 2017, "
    "arXiv:1706.04599).",
    "temperature bound": "Where the search for the best temperature ended, at 1/4 or 8: the true "
    "one may lie beyond.",
    "ECE": "Expected calibration error: how far confidence is from accuracy, in the mean over 15 "
    "bins of confidence (Guo et al. 2017, arXiv:1706.04599).",
    "over-confident part of the ECE": "What those bins add to the ECE that are surer than right.",
    "MCE": "Maximum calibration error: that of the bin where confidence is farthest from accuracy.",
    "95 % interval": "Where the true share lies in 95 of 100 such samples, as far as chance goes "
    "(Wilson 1927).",
    "reliability diagram": "Accuracy against confidence, in bins: on the diagonal predictions are "
    "as often right as they say, below it they are too sure.",
    # -- samples from epoch to epoch -------------------------------------------------------
    "sample": "One row of the data, matched between epochs by its id or its position.",
    "rr": "Samples that were right and stayed right.",
    "rw": "Samples that were right and became wrong.",
    "wr": "Samples that were wrong and became right.",
    "ww": "Samples that were wrong and stayed wrong.",
    "ww_same": "Samples that stayed wrong with the same prediction.",
    "ww_changed": "Samples that stayed wrong with another prediction.",
    "churn": "The share of samples whose prediction is another one than in the epoch before "
    "(Milani Fard et al. 2016).",
    "negative flip rate": "The share of samples that were right and became wrong (Yan et al. 2021, "
    "arXiv:2011.09161).",
    "forgetting event": "A sample that was right in an epoch and is wrong in the next (Toneva et "
    "al. 2019, arXiv:1812.05159).",
    "first learned": "The first epoch in which a sample was right.",
    "times right": "In how many epochs a sample was right, of those in which it was valid.",
    "AUM": "Area under the margin: a sample's mean margin over the epochs, low where its label is "
    "doubtful (Pleiss et al. 2020, arXiv:2001.10528).",
    "variability": "The standard deviation over the epochs of the probability of the label "
    "(Swayamdipta et al. 2020, arXiv:2009.10795).",
    "cartography regions": "Samples by mean and spread of the probability of the label over the "
    "epochs: easy to learn, ambiguous, hard to learn (Swayamdipta et al. 2020, arXiv:2009.10795).",
    "concentration": "How much of the loss the worst samples carry.",
    "Lorenz curve": "The share of the loss against the share of samples that carry it, the worst "
    "first.",
    "Gini coefficient": "How unevenly samples share the loss: 0 where all have the same, 1 where "
    "one has it all.",
    "suspect score": "How doubtful a label is: the confidence of another class times how many nats "
    "the label is behind it, the mean of two epochs.",
    "confident suspect": "Whether the predicted class is at least as probable as it is to its own "
    "samples in the mean, as confident learning asks (Northcutt et al. 2021, arXiv:1911.00068).",
    "contribution": "What a class adds to the change in the mean loss or in the accuracy: these "
    "add up to the change.",
    # -- classes ---------------------------------------------------------------------------
    "support": "Valid samples with this label.",
    "recall": "Of the samples of a class, the share that is predicted as it.",
    "precision": "Of the samples predicted as a class, the share that is of it.",
    "F1": "The harmonic mean of precision and recall.",
    "F1, macro": "The mean F1 of the classes, all alike.",
    "F1, weighted": "The mean F1 of the classes, by their support.",
    "balanced accuracy": "The mean recall of the classes, all alike.",
    "MCC": "Matthews correlation coefficient of labels and predictions: 1 where all are right, 0 "
    "where they are unrelated (Gorodkin 2004).",
    "D²": "The share that is saved of the loss of always predicting the class shares: 0 means "
    "nothing learned.",
    "accuracy of the majority": "What always predicting the most frequent class would reach.",
    "prior entropy": "The loss of always predicting the class shares, in nats.",
    "confusion": "Samples of one class that are predicted as a certain other one.",
    "ROC AUC": "How probable it is that a sample of a class scores higher for it than a sample of "
    "another: 0.5 is chance.",
    "average precision": "The mean precision over all thresholds, weighted by the recall that each "
    "adds.",
    "true positive rate": "The recall of the positive class: the share of positives above the "
    "threshold.",
    "false positive rate": "The share of negatives above the threshold.",
    "threshold": "The probability from which on a sample is taken for the positive class.",
    # -- counts ----------------------------------------------------------------------------
    "invalid": "Rows that have no usable prediction or label; no mean includes them.",
    "unnormalized": "Rows whose probabilities do not sum to 1.",
    "ties": "Rows in which several classes share the highest value; the lowest index counts.",
}
CAUSES: dict[str, str] = {
    "overconfidence": "Predictions are surer than they are right: a temperature above 1 would "
    "lower the loss.",
    "underconfidence": "Predictions are less sure than they are right: a temperature below 1 would "
    "lower the loss.",
    "label_noise": "Labels contradict confident predictions: some labels taken as random explain "
    "the losses better than any temperature.",
    "imbalance": "The logit of the most frequent of unbalanced classes is off, for all samples "
    "alike.",
    "threshold": "The logit of one of two classes is off, for all samples alike: another threshold "
    "would repair it.",
    "class_bias": "The logit of one class is off, for all samples alike, though classes are "
    "balanced.",
    "outliers": "A few samples have a loss that no calibrated model would have.",
    "borderline_flips": "Samples changed between right and wrong close to the decision boundary "
    "(within odds of 3 to 1).",
    "confident_flips": "Samples changed between right and wrong from far beyond the decision "
    "boundary.",
    "certainty": "Samples kept their answer and became more, or less, sure of it, as no "
    "temperature explains.",
    "separation": "Samples that flipped and samples that did not moved alike: the model learned, "
    "or forgot.",
    "infinite": "Labels got probability 0: their loss, and with it the mean, is infinite.",
    "clipped": "Labels got probability 0, and their loss is what the clipping makes of it.",
    "unnormalized": "Losses are not those of probabilities that sum to 1.",
    "noise": "Nothing is beyond what chance alone does.",
}
GLOSSARY |= {name.replace("_", " "): said for name, said in CAUSES.items() if name not in GLOSSARY}
