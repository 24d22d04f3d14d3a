"""Choose the batch size by gradient descent: M as a parameter of a differentiable prediction.

Run: python -m experiments.choosing.batch_size_gradient    (about 1 minute; data root in MCBN_DATA)
"""

import json
import math
import warnings

import torch

import mcbn
from experiments.choosing.large_batch import large_case
from experiments.record import RESULTS, rounded
from mcbn.io.tensors import write_whole

COLLECTED_AT, DRAWS = 64, 32  # M and T of the bank
START, STEPS, RATE = 200.0, 60, 0.1  # Adam on log M
RESULT = RESULTS / "batch_size_gradient.json"


def main() -> None:
    """Minimise the held-out NLL over log M; compare with the search over a grid."""
    warnings.simplefilter("ignore", mcbn.InconsistentBankWarning)
    torch.set_num_threads(1)
    case, _ = large_case()
    bank = case.bank(COLLECTED_AT, seed=0).first(DRAWS)
    log_size = torch.tensor(math.log(START), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_size], lr=RATE)
    path = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        sampler = mcbn.MCBatchNorm(case.network, bank.rescale(log_size.exp()))
        draws = sampler(case.inputs).double().log_softmax(-1)
        mean = draws.logsumexp(0) - math.log(DRAWS)
        nll = torch.nn.functional.nll_loss(mean, case.targets)
        nll.backward()
        path.append([float(log_size.detach().exp()), float(nll.detach())])
        optimizer.step()
    optimum = float(log_size.detach().exp())
    choice = mcbn.choose_batch_size(case.network, bank, case.inputs, case.targets, points=9)
    print(f"gradient descent: {optimum:.4g}\n{choice}")
    result = {"path": path, "descent": optimum, "choice": choice.to_dict()}
    write_whole(RESULT, (json.dumps(rounded(result), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
