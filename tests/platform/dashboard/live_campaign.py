"""A campaign on the fast oracle as a Prefect flow, one word a line: `advance`, `jobs`, `break` and `mend`.

Run as a script by `test_live.py`, since it replaces two steps by fast ones in its process.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "flows"))

import fast_campaign


def main(campaign_id: str) -> None:
    """Do what each line says; answer with what came of it."""
    fast_campaign.prepare()
    from wyloop.flows import session
    from wyloop.flows.campaign import advance_campaign

    print("ready", flush=True)  # noqa: T201 - to the test
    campaigns = session.store().database["campaigns"]
    for line in sys.stdin:
        word = line.strip()
        told = "done"
        if word == "advance":
            state = advance_campaign(campaign_id, return_state=True)
            told = str(state.result()) if state.is_completed() else f"{state.name}: {state.message}"
        elif word == "jobs":
            fast_campaign.run_jobs(None)
        else:  # a policy that no step can read
            n = -1 if word == "break" else 4
            campaigns.update_one({"campaign_id": campaign_id}, {"$set": {"settings.n_candidates": n}})
        print(f"told {told}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
