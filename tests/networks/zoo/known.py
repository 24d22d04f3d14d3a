"""What is not right yet, by network: entries, or families of entries that all fail."""

KNOWN: dict[str, str] = {
    "normalises its input by sub_ and div_":
        "mcbn, linearized, dropout, ensemble, deterministic, predict, compare, bank, inspect",
    "normalises its input channel by channel":
        "mcbn, linearized, dropout, ensemble, deterministic, predict, compare, bank, inspect",
    "clamps its input": "mcbn, linearized, dropout, ensemble, deterministic, inspect",
    "multiplies x.data, which no counter sees":
        "mcbn, linearized, dropout, ensemble, deterministic, predict, compare, bank, inspect",
    "multiplies x.numpy(), which no counter sees":
        "mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect",
    "doubles its input with out=":
        "mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect",
    "doubles its input and answers of it":
        "mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect",
    "adds a block into its stem": "mcbn auto, mcbn folded, predict, compare, bank",
    "adds blocks into what comes before": "linearized",
    "adds in place inside a checkpoint":
        "mcbn auto, mcbn folded, linearized, predict, compare, bank",
    "divides a keyword argument":
        "mcbn, linearized, ensemble, deterministic, predict, bank, inspect",
    "shifts its tokens by one":
        "mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect",
    "fills the masked features":
        "mcbn, linearized, ensemble, deterministic, predict, bank, inspect",
    "adds an axis to its input by unsqueeze_":
        "mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect",
    "turns its input by transpose_":
        "mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect",
    "F.batch_norm(training=True) in a layer":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "batch statistics unless a flag is set":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "norm.train() in forward":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "self.train() in forward":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "F.batch_norm without buffers":
        "mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, doctor",
    "track_running_stats=False": "ensemble, deterministic",
    "track_running_stats=False beside a plain layer": "ensemble, deterministic",
    "centres by the batch": "predict regrouped",
    "divides by the largest of the batch": "predict regrouped",
    "attends across the batch": "linearized, predict regrouped",
    "deviation of the batch as a feature": "predict regrouped",
    "divides by the number of examples": "predict regrouped",
    "takes one path for the whole batch": "predict regrouped",
    "sorts and puts back": "linearized",
    "answers in sorted order": "predict regrouped",
    "one answer for the whole batch": "mcbn, ensemble, deterministic, predict, bank",
    "leaves the last example out": "mcbn, ensemble, deterministic, predict, bank",
    "frames first": "collect, predict regrouped",
    "frames of images first": "collect, predict regrouped",
    "a GRU of frames first, as many as examples": "predict regrouped",
    "examples in columns": "collect, predict regrouped",
    "a second norm for half of the batch in training": "collect",
    "carries a state from call to call":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "a queue of earlier batches":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "masked batch norm of (N, C, L)": "collect, inspect",
    "masked rows of (N, L, C)": "collect, linearized",
    "batch norm of (N, L, C)": "collect, linearized",
    "batch norm of (N, L, C) with L = C": "collect, linearized",
    "ghost batch norm with buffers of all parts": "collect, linearized, inspect, doctor",
    "ghost batch norm that calls itself on pieces": "collect, inspect, doctor",
    "virtual batch norm of pieces of 8": "inspect, doctor",
    "batch renormalisation": "collect, inspect, doctor",
    "the variance divided by n - 1": "collect",
    "mean absolute deviation called running_var": "collect, inspect, doctor",
    "centred by the batch, scaled by the running deviation": "collect, inspect, doctor",
    "a running normaliser before batch norm": "collect, mcbn auto, mcbn folded",
    "a standardiser before batch norm": "collect, mcbn auto, mcbn folded",
    "statistics per type of example, before batch norm": "collect",
    "a table of statistics per time step": "collect",
    "filter response norm with a running square": "mcbn auto, mcbn folded, predict, compare",
    "EvoNorm-B0 beside batch norm": "mcbn auto, mcbn folded, predict, compare",
    "a layer used through its tensors": "mcbn auto, mcbn folded, predict, compare",
    "pools nodes by index_add": "collect",
    "pools points by scatter_reduce": "collect, predict regrouped",
    "a graph convolution": "collect, predict regrouped",
    "a graph as keyword arguments": "collect, predict regrouped",
    "batch norm after pooling a graph": "collect, predict regrouped",
    "bags with attention": "collect, predict regrouped",
    "an embedding bag with offsets": "collect, predict regrouped, bank",
    "a list of clouds": "collect, predict",
    "a packed sequence":
        "collect, mcbn, linearized, ensemble, deterministic, predict, bank, inspect",
    "a packed sequence among the arguments": "collect, predict regrouped",
    "an answer for every node": "collect, predict regrouped",
    "ends in softmax": "predict, compare, inspect, doctor",
    "ends in softmax, in forward": "predict, compare, inspect, doctor",
    "ends in softmax inside a dict": "predict, compare",
    "ends in a clamped softmax": "predict, compare, inspect, doctor",
    "ends in sigmoid": "predict, compare, inspect, doctor",
    "one sigmoid output": "inspect, doctor",
    "a dict with attributes": "mcbn auto, mcbn folded, predict, compare, bank",
    "detections of varying number": "mcbn, ensemble, deterministic, predict, compare, bank",
    "confident examples leave early": "linearized",
    "class scores in front of the examples": "mcbn, ensemble, deterministic, predict, bank",
    "complex answers": "linearized, predict, compare",
    "the active head of several": "switch",
    "depth of the exit": "switch",
    "a deeper exit than that of the bank": "switch",
    "temperature": "switch",
    "a setting in a dict": "switch",
    "a list of a dict": "switch",
    "an adapter of low rank": "switch",
    "a tensor that is no buffer, replaced": "switch",
    "an activation that is a function": "switch",
    "an attribute of a part": "switch",
    "a mixture that is off": "switch",
    "a forward that is replaced": "switch",
    "an attribute of the class": "switch",
    "a global setting": "switch",
    "counts its calls":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, inspect",
    "counts its calls in a buffer":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, inspect",
    "answers differently at every call":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "keeps its hidden values":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, inspect",
    "keeps a list of what it saw":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, inspect",
    "a running average that goes on in eval mode":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, inspect",
    "keeps its answer by the identity of the inputs":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, inspect",
    "functional dropout that is always on":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "stochastic depth by hand":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "stochastic depth by Python's random":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "Gaussian noise":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "Gaussian noise by NumPy":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "noise of a generator of its own":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "noise that is the same at every call": "mcbn auto, mcbn folded, predict",
    "samples its latent values":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "Gumbel-softmax in the middle":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "crops at random":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "depends on the time":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "random once in sixteen calls":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
    "random features":
        "collect, mcbn, linearized, ensemble, deterministic, predict, compare, bank, inspect, "
        "doctor",
}  # fmt: skip
