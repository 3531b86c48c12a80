"""What others read: COCO's results format, and an HTML page of pictures, captions and scores."""

from .coco_results import RESULTS, check_ids, ids_of_files, read_captions, write_results
from .html import check_page, write_html

__all__ = ["RESULTS", "check_ids", "check_page", "ids_of_files", "read_captions", "write_html", "write_results"]
