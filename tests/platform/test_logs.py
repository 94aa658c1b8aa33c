"""Log lines as JSON: the ids that a message names stand in fields of their own."""

import json
import logging
import subprocess
import sys
from pathlib import Path

from wyloop.platform.logs import JsonFormatter, ids_in


def test_ids_are_found() -> None:
    text = "campaign-0123456789ab-r3: c-0123456789ab failed in calc-0123456789abcdef, model-0123456789ab"
    assert ids_in(text) == {
        "round_id": "campaign-0123456789ab-r3",
        "campaign_id": "campaign-0123456789ab",
        "candidate_id": "c-0123456789ab",
        "calculation_id": "calc-0123456789abcdef",
        "model_id": "model-0123456789ab",
    }
    assert ids_in("nothing of ours") == {}


def test_a_line_is_one_object_with_the_run_of_prefect() -> None:
    record = logging.LogRecord("wyloop.x", logging.INFO, __file__, 1, "proposed %d\ncandidates", (7,), None)
    record.task_run_name = "generate campaign-0123456789ab-r3"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["message"], told["round_id"]) == (
        "INFO",
        "proposed 7\ncandidates",
        "campaign-0123456789ab-r3",
    )


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wyloop.platform.cli.main", "--log-format", "xml", "config", "show"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "expected one of text, json" in done.stderr
