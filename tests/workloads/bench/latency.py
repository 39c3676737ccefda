"""Latency of a warm photon, sandbox starts of a burst, and what happens above capacity."""
import asyncio
import math
import time

from .memory import handler

BURST = 64
BURST_CONCURRENCY = 8
OVERLOAD_CONCURRENCY = 8
OVERLOAD_SECONDS_EACH = 0.1
REFUSED_WITHIN_MS = 10


def percentiles(values, *wanted):
    """{"p50": …}, of seconds, in milliseconds."""
    ordered = sorted(values)
    return {f"p{p:g}": ordered[min(len(ordered) - 1, math.ceil(len(ordered) * p / 100) - 1)] * 1e3 for p in wanted}


def variables(language, concurrency):
    """Of a function without network."""
    return {"LANTERN_RUNTIME": language, "LANTERN_MAX_CONCURRENCY": str(concurrency)}


async def warm(bench, language, count):
    """One connection, one invocation after the other, of a handler that does nothing."""
    name = f"{language}-echo"
    worker = bench.worker
    worker.create(name, language, handler(language, "echo"), variables(language, 8))
    try:
        result = {}
        signed = worker.request(name, {"hello": "world"})
        for way, wire, request in (("http", worker.wire, signed), ("socket", bench.control(), bench.control_request(name))):
            for _ in range(200):
                reply = await wire.call(request)
                if not reply.good:
                    raise RuntimeError(f"{name} by {way}: {reply}")
            result[way] = percentiles([(await wire.call(request)).seconds for _ in range(count)], 50, 90, 99)
            bench.say(f"{language} echo by {way}: " + ", ".join(f"{p} {ms:.3f} ms" for p, ms in result[way].items()))
        return result
    finally:
        worker.delete(name)


async def runtime_api(bench, count):
    """What a request to the Runtime API costs inside a sandbox, as a handler sees it."""
    worker = bench.worker
    worker.create("python-probe", "python", "probe.handler", variables("python", 8))
    try:
        reply = None
        for _ in range(3):
            reply = await worker.invoke("python-probe", {"count": count})
            if not reply.good:
                raise RuntimeError(f"python-probe: {reply}")
        seen = reply.json()
        bench.say("Runtime API round trip: " + ", ".join(f"{p} {ms:.3f} ms" for p, ms in seen.items()))
        return seen
    finally:
        worker.delete("python-probe")


async def burst(bench, language):
    """n invocations at once of a function without a sandbox: how many sandboxes start for them."""
    name = f"{language}-burst"
    worker = bench.worker
    worker.create(name, language, handler(language, "sleep"), variables(language, BURST_CONCURRENCY))
    try:
        started = time.perf_counter()
        replies = await asyncio.gather(*(worker.invoke(name, {"seconds": 5}) for _ in range(BURST)))
        seconds = time.perf_counter() - started
        bad = [reply for reply in replies if not reply.good]
        if bad:
            raise RuntimeError(f"{name}: {bad[0]}")
        count = worker.stats(name)["starts"]
        wanted = math.ceil(BURST / BURST_CONCURRENCY)
        bench.say(f"{language}: {BURST} cold invocations, {BURST_CONCURRENCY} a sandbox: {count} sandboxes ({wanted} wanted), {seconds:.1f} s")
        return {"invocations": BURST, "concurrency": BURST_CONCURRENCY, "sandboxes": count, "wanted": wanted,
                "seconds": seconds, "pass": count == wanted}
    finally:
        worker.delete(name)


async def overload(bench, language, seconds):
    """Open loop at half, once, twice and four times what a function's reserved concurrency can do."""
    name = f"{language}-overload"
    worker = bench.worker
    worker.create(name, language, handler(language, "sleep"), variables(language, OVERLOAD_CONCURRENCY))
    try:
        worker.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=OVERLOAD_CONCURRENCY)
        request = worker.request(name, {"seconds": OVERLOAD_SECONDS_EACH})
        await asyncio.gather(*(worker.invoke(name, {"seconds": 1}) for _ in range(OVERLOAD_CONCURRENCY)))
        capacity = OVERLOAD_CONCURRENCY / OVERLOAD_SECONDS_EACH
        rows = []
        for factor in (0.5, 1, 2, 4):
            replies = await open_loop(worker.wire, request, capacity * factor, seconds)
            good = [reply.seconds for reply in replies if reply.good]
            refused = [reply.seconds for reply in replies if reply.status == 429]
            row = {"offered": capacity * factor, "factor": factor, "goodput": len(good) / seconds,
                   "refused": len(refused), "other": len(replies) - len(good) - len(refused),
                   "good_ms": percentiles(good, 50, 99) if good else None,
                   "refused_ms": percentiles(refused, 50, 99, 100) if refused else None}
            rows.append(row)
            bench.say(f"{language} overload {factor:g}x: {row['goodput']:.0f}/s good of {row['offered']:.0f}/s, "
                      f"{row['refused']} refused {row['refused_ms'] or ''}, {row['other']} else")
        once, twice = rows[1], rows[2]
        return {"capacity": capacity, "rows": rows,
                "flat": twice["goodput"] >= 0.95 * once["goodput"],
                "refused_fast": bool(twice["refused_ms"]) and twice["refused_ms"]["p99"] <= REFUSED_WITHIN_MS}
    finally:
        worker.delete(name)


async def open_loop(wire, request, rate, seconds):
    """Requests at a fixed rate, whatever becomes of them."""
    calls = []
    begin = time.perf_counter()
    for number in range(int(rate * seconds)):
        wait = begin + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        calls.append(asyncio.create_task(wire.call(request)))
    return await asyncio.gather(*calls)
