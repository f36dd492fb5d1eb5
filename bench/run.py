"""The benchmark: ai-mux against nginx, an aiohttp proxy and no proxy, in one run.

    python bench/run.py [--quick] [--only json,sse,ws,upload,tls,meter,usage,idle,start] [--rounds N]
                        [--proxies ai-mux,nginx,aiohttp] [--engines asyncio,uvloop,…]
                        [--out FILE.json] [--keep]

Needs Linux, two cores and openssl; nginx is left out, with a warning, where it is
not installed. Everything stays on loopback, in a temporary directory, and every
program that was started is ended, by its id, however the run ends.

Exit code: 0; 1 when a bar was missed (never with --quick), or a program did not
start or answered wrongly; 2 for wrong options.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Final

import ledger
import report
import uvloop
import workloads
from load import WrongAnswer
from measure import NotStarted, free_port
from proxies import Place, Proxy, nginx, upstream
from streams import Stream
from tunnels import Tunnel

_PARTS: Final = ("json", "sse", "ws", "upload", "tls", "meter", "usage", "idle", "start")
_PROXIES: Final = ("ai-mux", "nginx", "aiohttp")
_ENGINES: Final = ("asyncio", "uvloop", "aiofastnet", "uvloop+aiofastnet")
_IDLE_ROUNDS: Final = 3  # memory hardly differs from one time to the next


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    options = _options()
    # 2,000 streams or tunnels are 2,000 descriptors here and 4,000 in the proxy.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="ai-mux-bench-"))
    try:
        return uvloop.run(_run(options, directory))
    except (NotStarted, WrongAnswer) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)
        return 1
    finally:
        if options.keep:
            print(f"configurations and logs: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small round; prints, never judges")
    parser.add_argument(
        "--only", type=_among(_PARTS), default=_PARTS, help="what to measure; 'tls' adds the TLS upstream"
    )
    parser.add_argument(
        "--engines", type=_among(_ENGINES), default=(), help="measure ai-mux under each of these"
    )
    parser.add_argument("--proxies", type=_among(_PROXIES), default=_PROXIES, help="what to compare")
    parser.add_argument("--rounds", type=int, help="how often everything is repeated")
    parser.add_argument("--out", type=Path, help="write every sample to this file, as JSON")
    parser.add_argument("--keep", action="store_true", help="leave configurations and logs, and say where")
    return parser.parse_args()


def _among(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def chosen(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return names

    return chosen


async def _run(options: argparse.Namespace, directory: Path) -> int:
    _stop_on_signals()
    began = time.monotonic()
    amounts = workloads.QUICK if options.quick else workloads.FULL
    if options.rounds:
        amounts = replace(amounts, rounds=options.rounds)
    proxies = _proxies(options)
    place = _place(directory)
    machine = _machine(place)
    print(report.facts(machine), flush=True)
    os.sched_setaffinity(0, {place.load_core})
    results = report.Results()
    try:
        with upstream(place):
            await _measure(place, proxies, amounts, options.only, results)
    finally:  # what was measured before something went wrong is still worth reading
        print(f"\n{report.figures(results)}\n\ntook {time.monotonic() - began:.0f} s", flush=True)
        if options.out:
            everything = {"machine": machine} | asdict(results)
            options.out.write_text(json.dumps(everything, indent=1, ensure_ascii=False))
    if options.quick:
        print("quick: too little work to judge by")
        return 0
    ours = [proxy.name for proxy in proxies if proxy.name.startswith("ai-mux")]
    print(f"\n{report.judgement(results, ours)}")
    found = (verdict for proxy in ours for *_, verdict in report.verdicts(results, proxy))
    return 1 if report.Verdict.MISS in found else 0


def _stop_on_signals() -> None:
    """Turn a request to stop into a cancellation, so that every child is ended on the way out."""
    run = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, lambda: run and run.cancel())


def _proxies(options: argparse.Namespace) -> list[Proxy]:
    chosen: list[Proxy] = []
    for name in options.proxies:
        if name == "ai-mux" and options.engines:
            chosen += [Proxy(name=f"ai-mux {engine}", engine=engine) for engine in options.engines]
        elif name == "nginx" and nginx() is None:
            print(
                "NGINX IS NOT INSTALLED: no ratio to it can be given, and most bars cannot be judged.",
                file=sys.stderr,
            )
        else:
            chosen.append(Proxy(name=name))
    return chosen


def _place(directory: Path) -> Place:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("ONLY ONE CORE: proxy and load disturb each other; do not trust the figures.", file=sys.stderr)
    return Place(
        directory=directory, load_core=cores[0], proxy_core=cores[-1], plain=free_port(), tls=free_port()
    )


async def _measure(
    place: Place,
    proxies: Sequence[Proxy],
    amounts: workloads.Amounts,
    only: Sequence[str],
    results: report.Results,
) -> None:
    upstreams = (False, True) if "tls" in only else (False,)
    if works := workloads.flowing(amounts, only):
        for tls in upstreams:
            await workloads.rounds(
                place,
                proxies,
                {_named(name, tls): work for name, work in works.items()},
                tls=tls,
                count=amounts.rounds,
                samples=results.flowing,
                spoken=results.spoken,
            )
    if "meter" in only:
        for proxy in proxies:
            if proxy.name.startswith("ai-mux"):
                await workloads.counting(
                    place,
                    proxy,
                    workloads.flowing(amounts, ("json", "sse")),
                    pairs=amounts.pairs,
                    metered=amounts.metered,
                    samples=results.counting,
                    meter_ns=results.meter_ns.setdefault(proxy.name, {}),
                )
    if "usage" in only:
        results.report_s[amounts.ledger_rows] = ledger.report_s(
            place.directory, rows=amounts.ledger_rows, core=place.proxy_core
        )
    if "idle" in only:
        for tls in upstreams:
            for _ in range(min(amounts.rounds, _IDLE_ROUNDS)):
                await _measure_idle(place, proxies, amounts.silent, tls, results)
        for proxy in proxies:
            if amounts.hold and proxy.name.startswith("ai-mux"):
                results.held[proxy.name] = await workloads.held(place, proxy, n=amounts.hold)
    if "start" in only:
        for _ in range(amounts.starts):
            for proxy in proxies:
                results.starts.setdefault(proxy.name, []).append(await workloads.start(place, proxy))


async def _measure_idle(
    place: Place, proxies: Sequence[Proxy], n: int, tls: bool, results: report.Results
) -> None:
    for work, kind in (("idle", Stream), ("idle, ws", Tunnel)):
        for proxy in proxies:
            if kind is Stream or proxy.relays_tunnels:
                found = results.silent.setdefault(_named(work, tls), {}).setdefault(proxy.name, [])
                found.append(await workloads.idle(place, proxy, kind=kind, tls=tls, n=n))


def _named(work: str, tls: bool) -> str:
    return f"{work}, TLS" if tls else work


def _machine(place: Place) -> dict[str, str]:
    cpu = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": ?"
    )
    versions = {
        name: metadata.version(name) for name in ("ai-mux", "uvloop", "aiofastnet", "httptools", "aiohttp")
    }
    found = nginx()
    shown = (
        subprocess.run((found, "-v"), capture_output=True, text=True, check=True).stderr if found else "none"
    )
    return {
        "CPU": f"{cpu.partition(':')[2].strip()}, {os.cpu_count()} cores",
        "cores": f"proxy on {place.proxy_core}, upstream and clients on {place.load_core}",
        "load average before": f"{os.getloadavg()[0]:.2f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "nginx": shown.strip().removeprefix("nginx version: "),
        **versions,
    }


if __name__ == "__main__":
    sys.exit(main())
