"""Time the first page of a filter on the server of optimade-python-tools: arguments URI DATABASE FILTER PAGE."""

import json
import os
import sys
import tempfile
from pathlib import Path

N_TIMES = 20


def main() -> None:
    """Configure the server as its documentation says, on our collection, and ask it."""
    uri, database, text, page = sys.argv[1:5]
    config = {
        "debug": False,
        "insert_test_data": False,
        "database_backend": "mongodb",
        "mongo_uri": uri,
        "mongo_database": database,
        "structures_collection": "optimade_structures",
        "references_collection": "optimade_references",
        "page_limit": int(page),
        "aliases": {"structures": {"id": "entry_id"}},
        "log_dir": tempfile.mkdtemp(),
    }
    path = Path(config["log_dir"]) / "optimade.json"
    path.write_text(json.dumps(config))
    os.environ["OPTIMADE_CONFIG_FILE"] = str(path)
    from optimade.server.main import app
    from scale_stages import side_by_side
    from starlette.testclient import TestClient

    with TestClient(app) as client:

        def ask() -> int:
            answer = client.get("/v1/structures", params={"filter": text, "page_limit": page})
            assert answer.status_code == 200, answer.text[:300]
            return len(answer.json()["data"])

        found = side_by_side({"tools": ask}, N_TIMES)["tools"] | {"entries": ask()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
