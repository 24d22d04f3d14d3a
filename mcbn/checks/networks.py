"""Checks of a network and of its bank, which `inspect`, `collect` and `rescale` make."""

from mcbn.bank.doubts import VALID_RATIOS
from mcbn.checks.check import Check
from mcbn.inspection.findings import DEAD_VARIANCE, MAX_FRACTION_AFTER, MIN_NOISE

OF_NETWORKS: tuple[Check, ...] = (
    Check(
        code="MCBN101",
        name="network-is-wrapped",
        looks_at="Whether the network is wrapped, as by DataParallel or torch.compile.",
        threshold="Any wrapper that is known. It is a note: the network inside is used.",
        source="Names of layers differ in a wrapper, and a bank is to fit with and without it.",
        remedy="Nothing need be done.",
    ),
    Check(
        code="MCBN102",
        name="torchscript",
        looks_at="Whether the network is TorchScript.",
        threshold="Any such network is a problem.",
        source="The layers of a scripted or traced network cannot be observed or replaced.",
        remedy="Give the network from before torch.jit.script or torch.jit.trace.",
    ),
    Check(
        code="MCBN103",
        name="incompatible-layers",
        looks_at="Batch-norm layers whose statistics cannot be drawn.",
        threshold="Any such layer is a problem; the sentence says why.",
        source="Without it the draws would be of another network than was trained.",
        remedy="Follow the sentence; else use MCDropout or an ensemble for this network.",
    ),
    Check(
        code="MCBN104",
        name="no-batch-norm",
        looks_at="Whether there is any batch norm.",
        threshold="None is a problem.",
        source="MCBN draws the statistics of batch norm; other normalisation has none to draw.",
        remedy=(
            "Give the network from before its batch norm was folded; else use MCDropout or an "
            "ensemble."
        ),
    ),
    Check(
        code="MCBN105",
        name="training-module",
        looks_at="Whether the network has a training step, as Lightning modules have.",
        threshold="Any such module. It is a note.",
        source="A bank fits the network that it was collected from: here the module around it.",
        remedy="Give the network inside, which the sentence names.",
    ),
    Check(
        code="MCBN106",
        name="weights-not-loaded",
        looks_at="Whether weights are on the meta device.",
        threshold="Any. It is a note: only the structure was seen.",
        source="Tensors on the meta device have a shape and no values.",
        remedy="Load the weights onto a real device.",
    ),
    Check(
        code="MCBN107",
        name="lazy-layers",
        looks_at="Whether layers have no weights yet.",
        threshold="Any. It is a note: no pass was made, which would have made them.",
        source="Lazy layers take the shape of their weights from the first batch.",
        remedy="Run one batch through the network first, and train it.",
    ),
    Check(
        code="MCBN108",
        name="weight-not-finite",
        looks_at="All weights and buffers.",
        threshold="Any that is NaN or infinite is a problem.",
        source="Every prediction through such a weight is NaN.",
        remedy="Load another checkpoint; training may have diverged.",
    ),
    Check(
        code="MCBN109",
        name="never-trained",
        looks_at="Running means and variances.",
        threshold="Means of 0 and variances of 1 throughout a layer.",
        source="These are the values before training, and no network keeps them in training.",
        remedy="Load the checkpoint of the trained network.",
    ),
    Check(
        code="MCBN110",
        name="dead-channels",
        looks_at="Channels whose running variance is small against epsilon.",
        threshold=f"A variance of at most {DEAD_VARIANCE:g} of epsilon.",
        source="Such a channel outputs its shift alone, whatever is drawn.",
        remedy="Nothing need be done; many of them make MCBN's draws differ less.",
    ),
    Check(
        code="MCBN111",
        name="half-precision",
        looks_at="The types of weights and statistics of batch norm.",
        threshold="16 bits.",
        source="16-bit activations round by up to 0.4%, which hides small noise of draws.",
        remedy="Collect and predict with model.float().",
    ),
    Check(
        code="MCBN112",
        name="frozen-layers",
        looks_at="Batch-norm layers that were frozen in training.",
        threshold="Any.",
        source=(
            "The network never used batch statistics there, so the spread that MCBN draws is not "
            "one it was trained with."
        ),
        remedy="Draw the other layers only: mcbn.MCBatchNorm(model, bank, layers=...).",
    ),
    Check(
        code="MCBN113",
        name="cumulative-average",
        looks_at="Batch-norm layers with momentum=None.",
        threshold="Any.",
        source=(
            "Their running statistics average over all of training, the first steps included, and "
            "may differ from those of the final weights, which MCBN draws."
        ),
        remedy="Train on for an epoch with a momentum, or update the statistics in a last epoch.",
    ),
    Check(
        code="MCBN114",
        name="one-value-per-channel",
        looks_at="How many values per channel a layer has in a mini-batch of M examples.",
        threshold="One is a problem; M = 1 alone is a note.",
        source="The variance of one value is zero.",
        remedy="Use M of at least 2.",
    ),
    Check(
        code="MCBN115",
        name="pass-fails",
        looks_at="A pass of the given inputs.",
        threshold="Any error is a problem.",
        source="Nothing can be drawn from a network that cannot be run.",
        remedy="Give inputs as the network is called with.",
    ),
    Check(
        code="MCBN116",
        name="called-twice",
        looks_at="How often each layer is called in a pass.",
        threshold="More than once is a problem.",
        source="One pair of buffers cannot hold the statistics of two calls.",
        remedy="Give each call a layer of its own.",
    ),
    Check(
        code="MCBN117",
        name="not-called",
        looks_at="Which layers a pass calls.",
        threshold="Any that is not called; a problem if none is.",
        source="A layer that is not called has no statistics to draw.",
        remedy="Check the network's forward: the layer may be called by another path only.",
    ),
    Check(
        code="MCBN118",
        name="draws-nearly-equal",
        looks_at="The noise that draws of M examples add to normalised outputs, of all layers.",
        threshold=f"Less than {100 * MIN_NOISE:g}% of a standard deviation.",
        source=(
            "In a convnet on digits mutual information was 0.0004 nats at 4.4% and 0.0001 at "
            "2.2%, less than the scores of thousands of images can show."
        ),
        remedy="Use a smaller M; the sentence says which.",
    ),
    Check(
        code="MCBN119",
        name="collect-refuses",
        looks_at="What collect says of a mini-batch or two of the given inputs.",
        threshold="Any refusal is a problem.",
        source="A bank cannot be collected from such a network.",
        remedy="Follow the sentence.",
    ),
    Check(
        code="MCBN120",
        name="batch-norm-is-early",
        looks_at="The share of layers with weights that come after the last batch norm.",
        threshold=f"More than {100 * MAX_FRACTION_AFTER:g}%.",
        source="Layers without statistics have no draws: their uncertainty is not seen.",
        remedy="Compare with MCDropout, an ensemble or LastLayerLaplace.",
    ),
    Check(
        code="MCBN121",
        name="random-outputs",
        looks_at="Whether the same inputs get the same outputs again in eval mode.",
        threshold="Any difference.",
        source="Dropout, noise or stochastic depth that is left on is taken for uncertainty.",
        remedy="Switch it off in eval mode.",
    ),
    Check(
        code="MCBN122",
        name="examples-mixed",
        looks_at="Whether the output of an example depends on the others in its batch.",
        threshold="More than rounding.",
        source="Predictions then depend on how the data are cut into batches.",
        remedy="Give batches as in training; each is passed whole.",
    ),
    Check(
        code="MCBN123",
        name="unknown-statistics",
        looks_at="Modules that change buffers of their own in train mode.",
        threshold="Any whose buffers are not named running_mean and running_var.",
        source="What they hold is not known, so it is not drawn.",
        remedy="Rename them if they are the mean and variance of a batch norm.",
    ),
    Check(
        code="MCBN124",
        name="layer-left-out",
        looks_at="Whether a layer normalises by the mean and variance of a mini-batch in training.",
        threshold="Another result than its own train mode gives.",
        source="Ghost batch norm, renormalisation and the like do something else.",
        remedy="Nothing need be done; such a layer keeps its running statistics in every draw.",
    ),
    Check(
        code="MCBN125",
        name="outputs-are-probabilities",
        looks_at="Whether the outputs lie between 0 and 1.",
        threshold="All of them. It is a note.",
        source="A softmax or sigmoid of probabilities is another distribution.",
        remedy='Predict with mcbn.Categorical(outputs="probabilities"), or mcbn.Bernoulli.',
    ),
    Check(
        code="MCBN126",
        name="network-warns",
        looks_at="Warnings of the network, or of a library, in a pass of the given inputs.",
        threshold="Any. It is a note.",
        source="They are shown as they were raised.",
        remedy="Follow the sentence.",
    ),
    Check(
        code="MCBN127",
        name="rescaling-doubted",
        looks_at="What the draws of a bank say against moving them to another batch size.",
        threshold=(
            f"A ratio of sizes outside {VALID_RATIOS[0]:g} to {VALID_RATIOS[1]:g}, variances that "
            "spread widely, channels that are dead in some draws, and others."
        ),
        source="Where rescaling was measured against collected banks: see docs/choosing.md.",
        remedy="Collect a bank at that batch size to be sure.",
    ),
)
