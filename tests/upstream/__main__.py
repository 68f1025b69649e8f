"""Run the provider until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl

from tests.upstream import server


async def serve(given: argparse.Namespace) -> None:
    """Listen, say where, wait for SIGTERM."""
    tls = None
    if given.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(given.cert, given.cert_key or None)
    listening = await server.start(server.Provider(given.key), given.port, given.unix, tls)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    where = given.unix or f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    print(f"listening on {where}", flush=True)
    await stop.wait()
    listening.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--unix", default="", help="a socket's path in place of a port")
    parser.add_argument("--key", default="", help="the only key accepted; any when not given")
    parser.add_argument("--cert", default="", help="serve TLS with this PEM file")
    parser.add_argument("--cert-key", default="", help="its private key, when in another file")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
