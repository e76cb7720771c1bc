"""What a run consists of, as a table: every parameter with its shape, type, size, and how it is cut over the devices."""

from clu import parameter_overview

from ove.train.init import TrainState

_LARGEST_LINES = 400


def parameter_table(state: TrainState) -> str:
    """The parameters of the encoder and the rows of each bank; scales, biases and the moments of the optimizers are left out.

    The state may be abstract; the column `Sharding` is that of the arrays, axis by axis.
    """
    banks = {name: {"rows": bank.rows} for name, bank in state.banks.items()}
    return parameter_overview.get_parameter_overview(
        {"encoder": state.params, "banks": banks}, include_stats="sharding", max_lines=_LARGEST_LINES
    )
