"""An HTTP service that is sent what a network sees, and says whether it has drifted.

    python app.py nets.py:build --weights w.pt --bank bank.st

See README.md in this folder.
"""

import argparse
import threading
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException

import mcbn
from mcbn.network.checkpoints import load


def build_app(
    model: torch.nn.Module, bank: mcbn.Bank, *, alpha: float = 0.01, most_examples: int = 1024
) -> FastAPI:
    """Make the service for a network and a bank of it.

    Args:
        model: the network.
        bank: mini-batches of examples that are preprocessed as those that will be sent.
        alpha: the chance of a false alarm, ever.
        most_examples: maximum number of examples per request.
    """
    monitor = mcbn.DriftMonitor(model, bank, alpha=alpha)
    waiting: list[torch.Tensor] = []  # examples of a mini-batch that is not yet whole
    turn = (
        threading.Lock()
    )  # requests come in threads, and a monitor takes one mini-batch at a time
    app = FastAPI(title="Drift")

    @app.get("/drift")
    def drift() -> dict[str, Any]:
        with turn:
            return {"alarm": monitor.alarm, "alarm_at": monitor.alarm_at,
                    "e_value": monitor.e_value, "alarm_e_value": 1 / alpha,
                    "mini_batches": len(monitor.e_values), "waiting": len(waiting)}  # fmt: skip

    @app.post("/observe")
    def observe(inputs: list[Any]) -> dict[str, Any]:
        rows = checked(inputs, waiting, most_examples)
        with turn:
            waiting.extend(rows)
            size = int(monitor.batch_size)
            while len(waiting) >= size:
                batch = torch.stack(waiting[:size])
                del waiting[:size]
                update(monitor, batch)
        return drift()

    return app


def checked(inputs: list[Any], waiting: list[torch.Tensor], most: int) -> torch.Tensor:
    """The examples of a request, or what is wrong with them."""
    try:
        rows = torch.from_numpy(np.asarray(inputs, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise HTTPException(422, f"expected rows of numbers of one shape, got {error}") from error
    if not 1 <= len(rows) <= most or rows.ndim < 2:
        raise HTTPException(422, f"expected 1 to {most} examples, got shape {tuple(rows.shape)}")
    if waiting and waiting[0].shape != rows.shape[1:]:
        raise HTTPException(422, f"expected examples of shape {tuple(waiting[0].shape)}, got "
                                 f"{tuple(rows.shape[1:])}")  # fmt: skip
    if not bool(rows.isfinite().all()):
        raise HTTPException(422, "expected finite numbers, got NaN or infinite ones")
    return rows


def update(monitor: mcbn.DriftMonitor, batch: torch.Tensor) -> None:
    """Give the monitor a mini-batch; what the network does not take is the client's to mend."""
    try:
        monitor.update(batch)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise HTTPException(422, f"expected inputs of the network, got {reason}") from error


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="file.py:function that builds the network")
    parser.add_argument("--weights", required=True, help="checkpoint of the network")
    parser.add_argument("--bank", required=True, help="file written by mcbn collect")
    parser.add_argument("--alpha", type=float, default=0.01, help="chance of a false alarm, ever")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    network = load(options.model, options.weights).network
    app = build_app(network, mcbn.Bank.load(options.bank), alpha=options.alpha)
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
