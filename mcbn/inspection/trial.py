"""What `collect` and the samplers would say of a network, from one mini-batch."""

import warnings
from dataclasses import dataclass

import torch
from torch.nn import Module

from mcbn import validation
from mcbn.bank.collect import collect
from mcbn.bank.consistency import InconsistentBankWarning
from mcbn.network.conduct import first_tensor, network_conduct
from mcbn.network.inputs import Inputs, can_be_cut, count, map_inputs, slice_examples, to_network
from mcbn.network.isolation import own_warnings, random_streams, restored
from mcbn.network.output_kind import output_kind

KINDS = {
    "probabilities": "The outputs sum to 1 over the classes, as those of a softmax: predict with "
    'likelihood=mcbn.Categorical(outputs="probabilities").',
    "between 0 and 1": "The outputs lie between 0 and 1 and do not sum to 1 over the classes, as "
    "those of a sigmoid: predict several labels an example with "
    'likelihood=mcbn.Bernoulli(outputs="probabilities").',
}
# Codes of what the outputs say, and of warnings that are not of mcbn.
OUTPUTS, FROM_OUTSIDE = "MCBN125", "MCBN126"


@dataclass(frozen=True)
class Trial:
    """What a mini-batch showed.

    Attributes:
        refusal: why the network cannot be collected from; "" if it can.
        notes: what `collect` and the samplers warn of: the code of the check, and a sentence.
    """

    refusal: str = ""
    notes: tuple[tuple[str, str], ...] = ()


NO_TRIAL = Trial()


def mini_batch(inputs: Inputs, batch_size: int, index: int = 0) -> Inputs:
    """A mini-batch of M examples; all, if there are fewer or they cannot be cut."""
    if can_be_cut(inputs) and count(inputs) > batch_size:
        part: Inputs = slice_examples(inputs, index * batch_size, (index + 1) * batch_size)
        return part
    return inputs


def tried(model: Module, inputs: Inputs, batch_size: int) -> Trial:
    """Collect two mini-batches, if there are so many, and ask how the network treats its inputs."""
    try:
        return _tried(model, inputs, batch_size)
    except RuntimeError:
        # The first axis may be another than that of the examples: all that was given is taken.
        return _tried(model, inputs, count(inputs))


def _tried(model: Module, inputs: Inputs, batch_size: int) -> Trial:
    inputs = to_network(model, inputs)
    several = can_be_cut(inputs) and count(inputs) >= 2 * batch_size
    batches = [mini_batch(inputs, batch_size, index) for index in range(1 + several)]
    try:
        with own_warnings(), random_streams(0, "inspect"):
            conduct = network_conduct(model, batches[0])
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                # Whatever the rows are: the mini-batch is the whole of what there is.
                collect(
                    model,
                    batches,
                    select=lambda batch: batch,
                    size=lambda _: batch_size,
                    limit=None,
                    progress=False,
                )
            with restored(model, parameters=True):
                outputs = first_tensor(model, map_inputs(torch.clone, batches[0]))
    except (ValueError, TypeError) as error:
        return Trial(refusal=str(error))
    notes = [
        (code or FROM_OUTSIDE, note)
        for each in said
        if each.category is not InconsistentBankWarning
        for note, code in [validation.uncoded(str(each.message))]
    ]
    kind = "between 0 and 1" if conduct.ends_in_sigmoid else output_kind(outputs)
    if kind in KINDS:
        notes.append((OUTPUTS, KINDS[kind]))
    return Trial(notes=tuple(dict.fromkeys(notes)))
