"""Log lines as JSON, with the ids that a message names, for who collects logs of many machines."""

import json
import logging
import re
from datetime import UTC, datetime

LOG_FORMATS = ("text", "json")
_IDS = {
    "round_id": re.compile(r"\bcampaign-[0-9a-f]{12}-r\d+\b"),
    "campaign_id": re.compile(r"\bcampaign-[0-9a-f]{12}"),
    "candidate_id": re.compile(r"\bc-[0-9a-f]{12}\b"),
    "calculation_id": re.compile(r"\bcalc-[0-9a-f]{16}\b"),
    "material_id": re.compile(r"\bm-[0-9a-f]{12}(?:-[0-9a-f]{6})?\b"),
    "model_id": re.compile(r"\bmodel-[0-9a-f]{12}\b"),
}
_OF_PREFECT = ("flow_run_name", "task_run_name")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, ids, Prefect's run, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage()
        run = {name: str(getattr(record, name)) for name in _OF_PREFECT if getattr(record, name, None)}
        told: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "process": record.process or 0,
        }
        told |= ids_in(" ".join([*run.values(), message])) | run
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def ids_in(text: str) -> dict[str, str]:
    """Return the first id of each kind that a text names; a round names its campaign too."""
    return {name: found.group() for name, pattern in _IDS.items() if (found := pattern.search(text))}
