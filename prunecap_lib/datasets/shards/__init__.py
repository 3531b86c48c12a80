"""Pictures and captions in tar files (WebDataset's format): written once, read from a folder or over HTTP."""

from .build import SHARDS, SPLIT, build_shards
from .cache import is_url
from .dataset import read_shards
from .index import ShardSettings

__all__ = ["SHARDS", "SPLIT", "ShardSettings", "build_shards", "is_url", "read_shards"]
