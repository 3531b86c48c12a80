"""How good is a captioner on a whole split? Captions, scores, controls, and where the figures come from.

    report, captions = evaluate(captioner, dataset)
    write_html("report", report, dataset, captions)

Under ``accelerate launch`` or ``torchrun`` the processes share the pictures, and find what one process finds.
"""

from .captions import Looks, caption_split, part_at_exit, processes, split_accuracy
from .coco_results import RESULTS, check_ids, ids_of_files, read_captions, write_results
from .files import REPORT, provenance, report_path, write_json, write_rows
from .html import check_page, write_html
from .scores import dealt_to_others, evaluate, mean, score_split

__all__ = ["Looks", "REPORT", "RESULTS", "caption_split", "check_ids", "check_page", "dealt_to_others", "evaluate",
           "ids_of_files", "mean", "part_at_exit", "processes", "provenance", "read_captions", "report_path",
           "score_split", "split_accuracy", "write_html", "write_json", "write_results", "write_rows"]
