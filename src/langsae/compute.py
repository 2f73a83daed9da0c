"""How a run uses the machine: the `compute` section of params.yaml."""

from typing import Annotated

from pydantic import Field, PositiveInt

from langsae.params import Spec


class Compute(Spec):
    """device: auto, cpu, cuda or cuda:N; threads: torch's on the CPU (part of a result's identity
    there, since sums of floats depend on it); batch_tokens: padded positions per forward pass;
    checkpoint_seconds: how much work a kill may cost.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    threads: PositiveInt = 2
    batch_tokens: PositiveInt = 2048
    checkpoint_seconds: PositiveInt = 60

    def apply(self) -> None:
        """Set torch's threads, and refuse nondeterministic kernels where it can."""
        import torch

        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
