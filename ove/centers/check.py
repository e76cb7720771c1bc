"""Labels are checked before they reach a device, where a wrong one could only be passed over."""

import numpy as np
from jaxtyping import Shaped

from ove.errors import BadInput


def check_labels(labels: Shaped[np.ndarray, "B L"], n_centers: int, bank: str) -> None:
    """BadInput unless all labels are integers in −1…n_centers − 1, where −1 is a missing one."""
    check_label_type(labels.dtype, bank)
    wrong = (labels < -1) | (labels >= n_centers)
    if wrong.any():
        sample, place = (int(i) for i in np.argwhere(wrong)[0])
        raise BadInput(
            f"labels of bank {bank}: {int(wrong.sum())} of {labels.size} are not within −1…{n_centers - 1} (sample {sample}, "
            f"place {place}: {labels[sample, place]}); the bank has {n_centers} centers: label the data again, or take the "
            "bank that the labels were made for."
        )


def check_label_type(dtype: np.dtype, bank: str) -> None:
    """BadInput unless labels are integers."""
    if not np.issubdtype(dtype, np.integer):
        raise BadInput(
            f"labels of bank {bank}: are {np.dtype(dtype).name}; numbers of centers are integers, for example int32."
        )
