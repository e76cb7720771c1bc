"""What `ove/__init__.py` imports when it is first used, for type checkers and editors."""

from ove.api.data import batches as batches
from ove.api.data import write_shards as write_shards
from ove.api.model import Model as Model
from ove.api.model import load as load
from ove.api.probe import ProbeResult as ProbeResult
from ove.api.probe import probe as probe
from ove.api.read import EncoderInput as EncoderInput
from ove.api.read import read as read
from ove.api.split import Split as Split
from ove.api.split import split as split
from ove.errors import OveError as OveError

__version__: str
