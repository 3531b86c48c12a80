"""COCO and Flickr8k from their servers: resumed, checked by size and checksum, unpacked safely."""

from .coco import CocoFiles, get_coco

__all__ = ["CocoFiles", "get_coco"]
