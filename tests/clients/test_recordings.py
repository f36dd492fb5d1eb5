"""The recorded requests that the transparency matrix sends are still what the clients send.

With AI_MUX_RECORD=1 the recordings are written anew instead of compared: for a new
version of a client, after a look at what has changed.
"""

import os

import pytest
from transparency.answers_to_clients import Provider
from transparency.client_runs import RUNS, Where
from transparency.recorder import framing, recording
from transparency.recordings import DIRECTORY, kept, load, names, save

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("run", RUNS)
async def test_a_client_sends_the_fields_that_were_recorded_in_that_order(run, clients, run_client, tmp_path):
    home = tmp_path / "home"
    async with recording(Provider(cuts=RUNS[run].cuts)) as recorder:
        finished = await RUNS[run].start(
            Where(
                url=recorder.url, home=home, run=run_client,
                modules=clients.modules, claude=clients.claude, codex=clients.codex,
            )
        )  # fmt: skip
    assert finished.code == 0, finished.out + finished.err
    sent = list(kept(run, recorder.requests, home=home))
    if os.environ.get("AI_MUX_RECORD"):
        for old in DIRECTORY.glob(f"{run}.*.http"):
            old.unlink()
        for one in sent:
            save(one)
    recorded = [load(name) for name in names() if name.startswith(f"{run}.")]
    assert recorded, "nothing is recorded of this run"
    if _runtimes(sent) != _runtimes(recorded) and _outline(sent) != _outline(recorded):
        pytest.skip(f"recorded with {_runtimes(recorded)}, which is not what this machine has")
    assert _outline(sent) == _outline(recorded)


def _runtimes(requests):
    """Return what no lock file pins: the machine's curl, and its Node below the JavaScript SDKs."""
    fields = [framing(one.head) for one in requests]
    agents = {one[b"user-agent"] for one in fields if one[b"user-agent"].startswith(b"curl/")}
    nodes = {one[b"x-stainless-runtime-version"] for one in fields if b"/JS " in one[b"user-agent"]}
    return agents | nodes


def _outline(requests):
    return {one.name: (one.method, one.target, one.field_names) for one in requests}
