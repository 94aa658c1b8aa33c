"""The examples of the documentation: every block of code that a page shows, and what is known of those not run."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
_BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<fenced>[\s\S]*?)^```|(?<=\n\n)(?P<plain>(?: {4}.*\n|\n(?= {4}))+)", re.M)

NOT_RUN = {
    r"make (setup|discover|test)$": "sets up the machine that the tests run on; `make test` is what runs them",
    r"\. \.venv/bin/activate$": "the tests run in that environment",
    r"pip install|python3\.11 -m venv": "minutes of installation; tests/test_packaging.py installs the wheel",
    r"docker|kubectl|sh deploy/kubernetes|cp deploy/docker": "needs a container engine; tests/deploy checks its files",
    r"(useradd|install -m|systemctl|cp deploy/systemd)": "needs root and systemd; tests/deploy checks the units",
    r"export WYLOOP_STORES_URI='mongodb://.*example\.org": "a server that is not there",
    r"wyloop worker --categories": "runs until it is stopped; tests/platform/test_services.py starts the same",
    r"wyloop api serve$": "runs until it is stopped; `wyloop up` starts this very command, and is run",
    r"docs/physics.md: wyloop worker": "hours of DFT; tests/flows/test_by_name.py runs its jobs, with coarse settings",
    r"wyloop db ingest mp": "needs a key and the network; tests/stores reads what the service answers",
    r"wyloop (up|status --figures|down)$": "start.md runs it, with the services that it starts",
    r"(\.venv/bin/)?wyloop discover": "minutes to an hour; start.md runs the same command, smaller, to its end",
}
"""Pattern of a command line, with or without its page, to why it is not run; start.md's are, all the same."""
NO_COMMANDS = {
    "structure -> gene -> latent z": "a picture",
    "platform/   what people see": "a list of folders",
    ".venv/bin/wyloop discover": "what `make discover` printed",
}
"""Beginning of a block that is neither a command nor a program."""


@dataclass(frozen=True)
class Example:
    """One block of a page: what it is written in, and the text without its indentation."""

    page: str
    kind: str
    text: str

    def lines(self) -> list[str]:
        """Return the commands of a block for the shell: continued lines joined, comments left out."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        return [line for raw in joined.splitlines() if (line := re.split(r"\s+#(?= )", raw)[0].strip())]


def examples() -> list[Example]:
    """Return every block of every page."""
    found = []
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for block in _BLOCK.finditer(page.read_text()):
            text = block["fenced"] or re.sub(r"^ {4}", "", block["plain"] or "", flags=re.M)
            found.append(Example(name, block["kind"] or _kind(text), text.rstrip()))
    return found


def _kind(text: str) -> str:
    if any(text.startswith(start) for start in NO_COMMANDS):
        return "picture"
    if text.startswith("[project.entry-points"):
        return "toml"
    if text.startswith("generators:"):
        return "yaml"
    return "target" if re.match(r"[\d.]+ < \w+ <", text) else "shell"


def why_not_run(page: str, line: str) -> str:
    """Return why a command line of a page is not run; "" for those that are."""
    return next((reason for pattern, reason in NOT_RUN.items() if is_meant(pattern, page, line)), "")


def is_meant(pattern: str, page: str, line: str) -> bool:
    """Whether a pattern of `NOT_RUN` means a command line of a page."""
    return bool(re.match(pattern, line) or re.match(pattern, f"{page}: {line}"))
