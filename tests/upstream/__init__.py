"""A provider to test against: OpenAI's wire format, a journal of what arrived, and faults on demand.

    python -m tests.upstream --port 0

prints `listening on 127.0.0.1:PORT`. What it answers depends on the request alone, its usage too,
so a test can work out what must be in the ledger. Control, on the same port:

    GET    /__journal          every request as it arrived, and how its answer ended; ?mark=TEXT chooses
    GET    /__spend            its own truth: per model, calls completed and tokens by kind
    POST   /__reset            forget both, and the faults
    PUT    /__fault            {"match": {"model": "gpt-*"}, "fault": "status=503", "times": 1}
    DELETE /__fault            no faults any more

A fault can also be asked for by the request itself: as its model, `fault;status=503;retry_after=2`,
or in the header `x-mock-fault`. `faults.py` lists them.
"""
